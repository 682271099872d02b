"""Databases in the real daemon: read in confined lookup, made anew while it runs."""

import os
from pathlib import Path

import pytest
from support.daemon import Daemon, cli, wait_until
from support.sink import sinking
from test_whole_rules import prepared, replies

DATABASES = """
table domains db:{dir}/domains.db
table users db:{dir}/users.db
table aliases db:{dir}/aliases.db
table others "{dir}/others"
listen on 127.0.0.1 port {port}
action out relay host "smtp://127.0.0.1:SINK"
action in maildir virtual <users>
action aliased maildir alias <aliases>
action otherwise maildir alias <others>
match from any for domain <domains> action in
match from any for domain "aliased.test" action aliased
match from any for domain "otherwise.test" action otherwise
match from local for domain "far.test" action out
"""


def make(directory: Path, name: str, text: str, *words: str) -> None:
    """makemap as an operator runs it."""
    (directory / name).write_text(text)
    done = cli("makemap", *words, str(directory / name))
    assert (done.returncode, done.stderr) == (0, "")


def update(daemon: Daemon, name: str) -> tuple[int, str]:
    done = cli("smtpctl_ps", "--state-dir", str(daemon.state), "update", "table", name)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(150)
def test_databases() -> None:
    """They decide about live sessions; a new one is seen by itself; a bad one leaves the old one; newaliases."""
    with sinking() as sink, prepared(DATABASES.replace("SINK", str(sink.port)), others="team: a@far.test\n") as daemon:
        here = daemon.dir
        make(here, "domains", "one.test\n*.two.test\n", "-t", "set")
        make(here, "users", "bob@one.test b@far.test\n@sub.two.test all@far.test\n", "-t", "aliases")
        make(here, "aliases", "team a@far.test\n", "-t", "aliases")
        daemon.start()

        def code(rcpt: str) -> int:
            return replies(daemon, "s@client.test", rcpt)[0]

        asked = ["Bob@One.test", "x@one.test", "any@sub.two.test", "bob@three.test", "team@aliased.test"]
        assert [code(rcpt) for rcpt in asked] == [250, 524, 250, 550, 250]
        if os.getuid() == 0:
            audit = cli("smtpctl_ps", "--state-dir", str(daemon.state), "audit")
            assert audit.returncode == 0, audit.stdout  # lookup holds three databases, and nothing beyond its policy
        make(here, "domains", "three.test\n", "-t", "set")
        wait_until("the new domains are used", lambda: code("bob@three.test") == 524)
        assert code("bob@one.test") == 550
        make(here, "users", "bob@three.test b@far.test\n", "-t", "aliases")
        assert update(daemon, "users") == (0, "table users: 1 entry\n")
        assert code("bob@three.test") == 250
        bad = f"{here}/users.db: it was not made by makemap"
        (here / "bad").write_text("bob@three.test b@far.test\n")
        (here / "bad").rename(here / "users.db")
        wait_until("the bad one is told", lambda: f"table users stays as it was: {bad}" in daemon.log)
        assert update(daemon, "users") == (1, f"smtpctl_ps: {bad}\n")
        assert code("bob@three.test") == 250
        (here / "aliases").write_text("other a@far.test\n")
        (here / "others").write_text("another a@far.test\n")
        done = cli("newaliases", "--state-dir", str(daemon.state), "-f", str(daemon.config_path))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"{here}/aliases: 1 aliases", "table aliases: 1 entry", "table others: 1 entry",
        ]  # fmt: skip
        asked = ["other@aliased.test", "team@aliased.test", "another@otherwise.test"]
        assert [code(rcpt) for rcpt in asked] == [250, 550, 250]
        daemon.stop()
    done = cli("newaliases", "-f", "/nonexistent")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "newaliases_ps: /nonexistent: cannot be read: No such file or directory\n"


def test_a_damaged_database_at_the_start() -> None:
    """The daemon does not start, and says which file it is."""
    with prepared(DATABASES.replace("SINK", "9"), others="") as daemon:
        for name in ("domains", "users", "aliases"):
            make(daemon.dir, name, "a b\n")
        whole = (daemon.dir / "users.db").read_bytes()
        (daemon.dir / "users.db").write_bytes(whole[:2050] + b"\7" + whole[2051:])
        daemon.start(wait=False)
        assert daemon.process is not None
        assert daemon.process.wait(30) == 1
        daemon.wait_logged(f"{daemon.dir}/users.db: it is damaged")
