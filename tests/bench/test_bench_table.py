"""The benchmark's table, its order of turns, and how it reads traces and account files."""

from collections import Counter

from bench.durability import calls_of, per_message
from bench.room import with_accounts
from bench.smtp_source import connections, shares
from bench.summary import Result, summarise
from bench.table import Headline, doubts, lay_out, number, rows
from bench.turns import turns

HEADLINES = {"W1": (Headline("rate", "per s", more_is_better=True), Headline("cpu", "CPU"))}


def test_turns_alternate_their_order() -> None:
    """Every second run measures the servers the other way round."""
    order = [(turn.number, turn.workload, turn.peer) for turn in turns(["W1", "W2"], ["a", "b"], 2)]
    assert order == [
        *((0, "W1", "a"), (0, "W1", "b"), (0, "W2", "a"), (0, "W2", "b")),
        *((1, "W1", "b"), (1, "W1", "a"), (1, "W2", "b"), (1, "W2", "a")),
    ]


def test_rows_hold_medians_ranges_and_ratios() -> None:
    """One line a headline; the ratio is in favour of ours where it is above 1, also for a cost."""
    results = [
        Result("W1", "ours", 0, {"rate": 1000.0, "cpu": 0.5}),
        Result("W1", "ours", 1, {"rate": 2000.0, "cpu": 0.5}),
        Result("W1", "theirs", 0, {"rate": 500.0, "cpu": 2.0}),
        Result("W1", "theirs", 1, {}, "no banner"),
    ]
    table = list(rows(summarise(results), HEADLINES, ["ours", "theirs"], "ours"))
    assert table == [
        ["workload", "figure", "ours", "theirs", "ours : theirs"],
        ["W1", "per s", "1500 (1000-2000)", "500 1/2 failed", "3.00"],
        ["W1", "CPU", "0.50 (0.50-0.50)", "2 1/2 failed", "4.00"],
    ]


def test_a_server_that_only_failed_keeps_its_row() -> None:
    """A failure must be seen in the table."""
    summary = summarise([Result("W1", "theirs", 0, {}, "no banner")])
    table = list(rows(summary, HEADLINES, ["ours", "theirs"], "ours"))
    assert table[1:] == [["W1", "per s", "", "1/1 failed", ""]]


def test_columns_line_up() -> None:
    """All lines are of one length, so that the table can be read as it is."""
    lines = lay_out([["a", "b", "ccc"], ["aaaa", "b", "1"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| ---- | - | --: |"


def test_numbers_have_three_digits() -> None:
    """No more than can be used."""
    assert [number(value) for value in (1234.5, 56.78, 1.234, 0.0, 3.0)] == ["1234", "56.8", "1.23", "0", "3"]


def test_disturbed_and_failed_runs_are_named() -> None:
    """Other work on the machine is said, not hidden."""
    results = [
        Result("W1", "ours", 0, {"foreign_cpu_share": 0.5}),
        Result("W1", "ours", 1, {"foreign_cpu_share": 0.01}),
        Result("W1", "theirs", 0, {}, "no banner"),
    ]
    assert doubts(results) == [
        "W1 ours run 1: 50% of the machine was busy with other work",
        "W1 theirs run 1 failed: no banner",
    ]


def test_shares_add_up() -> None:
    """Every message is sent by exactly one client, and no client has nothing to send."""
    assert shares(10, 3) == [4, 3, 3]
    assert shares(2, 20) == [1, 1]


def test_kept_connections_end_before_the_servers_would_end_them() -> None:
    """OpenSMTPD and smtpd_ps take a hundred messages a session by default."""
    assert connections(250, keep=True) == [100, 100, 50]
    assert connections(100, keep=True) == [100]
    assert connections(250, keep=False) == [250]


def test_accounts_are_added_with_free_ids() -> None:
    """Names that exist keep their ids; new ones get ids that nobody has."""
    accounts = with_accounts("root:x:0:0::/:/bin/sh\nold:x:7:7:::\n", "root:x:0:\nold:x:7:\n", ["old", "new"], ["drop"])
    assert accounts.uids["old"] == 7
    assert accounts.passwd.count("old:") == 1
    assert f"new:x:{accounts.uids['new']}:{accounts.gids['new']}:" in accounts.passwd
    assert f"drop:x:{accounts.gids['drop']}:\n" in accounts.group
    assert len(set(accounts.gids.values())) == len(accounts.gids)


TRACE = """\
openat(AT_FDCWD, "/etc/hosts", O_RDONLY) = 3
openat(AT_FDCWD, "m", O_WRONLY|O_CREAT|O_EXCL, 0600) = 4
fsync(4) = 0
unlink("gone") = -1 ENOENT (No such file or directory)
rename("m", "n") = 0
"""


def test_only_calls_that_did_something_are_counted() -> None:
    """Failed calls and opening what exists are not part of a promise's price."""
    calls = calls_of(TRACE, "queue")
    assert calls == Counter({("queue", "openat+O_CREAT"): 1, ("queue", "fsync"): 1, ("queue", "rename"): 1})
    figures = per_message(calls, 2)
    assert (figures["syncs_per_message"], figures["calls_per_message"]) == (0.5, 1.5)
    assert figures["per_message"]["queue: fsync"] == 0.5


def test_a_process_that_execs_counts_as_what_it_became() -> None:
    """A delivery agent is named after its program, not after its parent."""
    trace = 'execve("/usr/libexec/mail.lmtp", ["x"], 0x1 /* 2 vars */) = 0\nfsync(4) = 0\n'
    assert calls_of(trace, "parent")["mail.lmtp", "fsync"] == 1
