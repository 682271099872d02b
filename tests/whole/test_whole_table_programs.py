"""Table programs with the real daemon: what a good one answers, and that a bad one disturbs nobody else."""

import base64
import contextlib
import json
import os
import shutil
import smtplib
import ssl
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, running, wait_until
from support.sink import sinking

PROGRAM = Path(__file__).parents[1] / "support" / "table_program.py"
Entries = dict[str, dict[str, str]]
TABLE = 'table t "proc-exec:{python} -I -S {place}/program {mode} {place}/entries"\n'
RULES = """
listen on 127.0.0.1 port {port} hostname mx.test
action out relay host "smtp://127.0.0.1:9"
match from any for domain <t> action out
match from any for domain "plain.test" action out
"""


def python() -> str:
    """An interpreter that the programs' user can run too."""
    for path in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or ""):
        if path and (os.getuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in Path(path).resolve().parents)):
            return path
    pytest.skip("no Python here that other users can run")


@dataclass
class World:
    """A daemon, and the folder of its table program."""

    daemon: Daemon
    place: Path

    def write(self, entries: Entries) -> None:
        write(self.place, entries)

    def let_go(self) -> None:
        """A slow program may answer now."""
        (self.place / "entries.go").touch()

    def state(self) -> dict[str, Any]:
        (line,) = self.daemon.ctl("--json", "show", "tables").splitlines()
        made: dict[str, Any] = json.loads(line)
        return made


def write(place: Path, entries: Entries) -> None:
    (place / "new").write_text(json.dumps(entries))
    (place / "new").replace(place / "entries")


@contextlib.contextmanager
def world(mode: str, entries: Entries, rules: str = RULES) -> Iterator[World]:
    place = Path(tempfile.mkdtemp(prefix="smtpd_ps-table-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        (place / "program").write_bytes(PROGRAM.read_bytes())
        write(place, entries)
        table = TABLE.format(python=python(), place=place, mode=mode)
        if "PLACE" in rules:
            write_acme(place / "acme", make_key("ecdsa"))
        with running(table + rules.replace("PLACE", str(place))) as daemon:
            yield World(daemon, place)
    finally:
        shutil.rmtree(place)


def rcpt(client: smtplib.SMTP, address: str) -> int:
    """The reply to a RCPT of a fresh transaction."""
    client.rset()
    client.mail("a@client.test")
    return client.rcpt(address)[0]


def test_domains_aliases_and_virtual_users_of_a_program() -> None:
    """The rules and the expansion ask it as they ask a table in memory; what it learns meanwhile counts at once."""
    rules = """
listen on 127.0.0.1 port {port} hostname mx.test
action in lmtp "/nowhere" rcpt-to virtual <t>
action out relay host "smtp://127.0.0.1:9"
match from any for domain <t> action in
match from src <t> for domain "relay.test" action out
"""
    carol = {"list": "carol", "carol": "carol@relay.test", "bob@example.com": "list"}
    entries: Entries = {
        "domain": {"example.com": ""},
        "alias": carol | {"list": "carol, dave"},
        "netaddr": {"127.0.0.1": "", "local": ""},  # what an expansion gives is local
    }
    with world("good", entries, rules) as made:
        with made.daemon.smtp() as client:
            client.ehlo()
            assert rcpt(client, "x@relay.test") == 250
            assert rcpt(client, "bob@example.org") == 550
            assert rcpt(client, "BOB@Example.COM") == 550  # the system has no dave
            made.write(entries | {"alias": carol})
            assert "updated" in made.daemon.ctl("update", "table", "t")
            assert rcpt(client, "bob@example.com") == 250
        shown = made.daemon.ctl(
            "explain", "--from", "127.0.0.1", "--sender", "a@client.test", "--rcpt", "bob@example.com"
        )
        assert "in table t: carol@relay.test" in shown
        now = made.state()
        assert (now["name"], now["state"], now["restarts"], now["in_flight"]) == ("t", "running", 0, 0)
        assert now["asked"] > 8 and now["failed"] == 0 and now["p99_usecs"] >= now["p50_usecs"] > 0
        assert now["offers"] == "alias domain netaddr"


def test_the_hosts_of_a_relay() -> None:
    """`host` fetches the next one for each question, `domain` looks one up."""
    rules = """
listen on 127.0.0.1 port {port} hostname mx.test
action next relay host <t>
action by relay domain <t>
match from any for domain "next.test" action next
match from any for any action by
"""
    with sinking() as first, sinking() as second:
        hosts = {"": f"smtp://127.0.0.1:{first.port}", "by.test": f"smtp://127.0.0.1:{second.port}"}
        with world("good", {"relayhost": hosts}, rules) as made:
            with made.daemon.smtp() as client:
                client.sendmail("a@client.test", ["x@next.test", "y@by.test"], "Subject: x\r\n\r\nbody\r\n")
            made.daemon.wait_empty()
            assert [mail.recipients for mail in first.mails] == [["x@next.test"]]
            assert [mail.recipients for mail in second.mails] == [["y@by.test"]]


def test_our_side_of_a_relay() -> None:
    """`src` fetches the address to come from, `helo-src` looks its name up; without one the mail waits."""
    rules = """
listen on 127.0.0.1 port {port} hostname mx.test
action out relay host "smtp://127.0.0.1:SINK" src <t> helo-src <t>
match from any for any action out
"""
    with sinking() as sink:
        entries: Entries = {"source": {"": "127.0.0.3"}, "addrname": {"127.0.0.3": "three.test"}}
        with world("good", entries, rules.replace("SINK", str(sink.port))) as made:
            with made.daemon.smtp() as client:
                client.sendmail("a@client.test", ["x@far.test"], "Subject: x\r\n\r\nbody\r\n")
            made.daemon.wait_empty()
            assert sink.greetings == ["three.test"] and sink.clients == ["127.0.0.3"]
        with world("good", {"source": {"": "127.0.0.3"}, "addrname": {}}, rules.replace("SINK", "9")) as made:
            with made.daemon.smtp() as client:
                client.sendmail("a@client.test", ["x@far.test"], "Subject: x\r\n\r\nbody\r\n")
            wait_until("it was tried", lambda: "has no name in helo-src" in made.daemon.log)
            assert made.daemon.queued() == 1


def test_filters_and_names_of_a_listener() -> None:
    """A builtin filter asks whether its key is there, `hostnames` for the name to greet with."""
    rules = """
filter bad phase mail-from match mail-from <t> reject "550 not you"
listen on 127.0.0.1 port {port} hostnames <t> filter bad
action out relay host "smtp://127.0.0.1:9"
match from any for any action out
"""
    entries: Entries = {"mailaddr": {"bad@client.test": ""}, "addrname": {"127.0.0.1": "named.test"}}
    with world("good", entries, rules) as made, smtplib.SMTP(timeout=20) as client:
        assert b"named.test" in client.connect("127.0.0.1", made.daemon.port)[1]
        client.ehlo()
        assert client.mail("bad@client.test")[0] == 550
        assert client.mail("good@client.test")[0] == 250


def test_senders_of_a_program() -> None:
    """Who may send as whom: at MAIL, where nobody has to wait but who asks."""
    rules = AUTH.replace("auth <t>", "auth <t> senders <t>")
    entries: Entries = {
        "auth": {f"Bob:{SECRET}": ""},
        "credentials": {"bob": "x"},
        "mailaddrmap": {"bob": "bob@a.test"},
    }
    with world("good", entries, rules) as made:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with made.daemon.smtp(made.daemon.port2) as client:
            client.starttls(context=context)
            client.login("Bob", SECRET)
            assert client.mail("eve@a.test")[0] == 530
            assert client.mail("bob@a.test")[0] == 250
            assert client.rcpt("x@far.test")[0] == 250


def test_a_slow_table_delays_only_who_needs_it() -> None:
    """One session waits for its answer; others, of the same table too, are served meanwhile."""
    with world("slow", {"domain": {"slow.test": "", "fast.test": ""}}) as made, made.daemon.smtp() as waiting:
        waiting.ehlo()
        waiting.mail("a@client.test")
        waiting.putcmd("rcpt", "TO:<x@slow.test>")
        wait_until("the question is asked", lambda: made.state()["in_flight"] == 1)
        with made.daemon.smtp() as client:
            client.ehlo()
            assert rcpt(client, "x@fast.test") == 250
            assert rcpt(client, "x@plain.test") == 250
        made.let_go()
        with made.daemon.smtp() as client:
            client.ehlo()
            assert rcpt(client, "x@fast.test") == 250
        assert waiting.getreply()[0] == 250


@pytest.mark.parametrize("mode", ["dying", "rubbish", "flood", "wrong-id", "twice"])
def test_a_program_that_misbehaves_costs_its_sessions_a_451(mode: str) -> None:
    """It is logged with its name, ended and started again; nothing else is disturbed, and mail flows afterwards."""
    bad = "die.test" if mode == "dying" else "bad.test"
    with world(mode, {"domain": {"good.test": "", bad: ""}}) as made, made.daemon.smtp() as client:
        client.ehlo()
        assert rcpt(client, "x@good.test") == 250
        assert rcpt(client, f"x@{bad}") == (250 if mode == "twice" else 451)
        wait_until("it is started again", lambda: made.state()["restarts"] >= 1)
        wait_until("it answers", lambda: made.state()["state"] == "running")
        assert rcpt(client, "x@good.test") == 250
        made.daemon.wait_logged("table t", "is started again in 1 s")
        if mode != "dying":
            made.daemon.wait_logged("it is given up")


def test_an_error_of_the_program_is_a_451_and_is_logged() -> None:
    """The program runs on."""
    with world("error", {"domain": {"good.test": ""}}) as made, made.daemon.smtp() as client:
        client.ehlo()
        assert rcpt(client, "x@bad.test") == 451
        assert rcpt(client, "x@good.test") == 250
        made.daemon.wait_logged("table t: the database is away")
        assert made.state()["restarts"] == 0


def test_one_that_cannot_be_reached_at_the_start_does_not_keep_the_daemon_down() -> None:
    """What needs it gets a 451, everything else is served."""
    with world("exit", {"domain": {}}) as made, made.daemon.smtp() as client:
        client.ehlo()
        assert rcpt(client, "x@good.test") == 451
        wait_until(
            "it does not run", lambda: made.state()["state"] == "not running"
        )  # it is started again now and then
        wait_until("its words are logged", lambda: "table t says: cannot reach the database" in made.daemon.log)


def test_a_service_that_is_not_offered_is_an_error_at_the_start() -> None:
    """With the table's and the service's names."""
    with pytest.raises(AssertionError, match="the daemon exited"), world("missing", {"domain": {}}):
        pass


def test_a_reload_to_a_table_without_the_service_changes_nothing() -> None:
    """The operator hears why; the old program answers on, and after a good reload the new one alone."""
    with world("good", {"domain": {"good.test": ""}}) as made:
        good = made.daemon.config
        (pid,) = program_pids(made.daemon)
        made.daemon.config = good.replace("program good", "program missing")
        made.daemon.write_config()
        done = cli("smtpctl_ps", "--state-dir", str(made.daemon.state), "reload")
        assert done.returncode != 0
        assert "table t does not offer service domain" in done.stdout + done.stderr
        with made.daemon.smtp() as client:
            client.ehlo()
            assert rcpt(client, "x@good.test") == 250
        made.daemon.config = good
        made.daemon.write_config()
        made.daemon.ctl("reload")
        wait_until("the old program is gone", lambda: pid not in program_pids(made.daemon))
        wait_until("there is one", lambda: len(program_pids(made.daemon)) == 1)
        with made.daemon.smtp() as client:
            client.ehlo()
            assert rcpt(client, "x@good.test") == 250
        made.daemon.ctl("audit")


def program_pids(daemon: Daemon) -> set[int]:
    """Children of the daemon that are no processes of ours."""
    assert daemon.process is not None
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (entry / "status").read_text()
            if f"\nPPid:\t{daemon.process.pid}\n" in status and b"/program\0" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


def test_audit_knows_the_programs() -> None:
    """As declared: their user, their group, no root directory, no channel of the daemon's."""
    with world("good", {"domain": {}}) as made:
        audit = json.loads(made.daemon.ctl("--json", "audit"))
        (program,) = audit["programs"]
        assert (program["kind"], program["name"], program["ok"]) == ("table", "t", True)
        assert audit["ok"]


AUTH = """
pki mxkey cert "PLACE/acme/live/fullchain.pem"
pki mxkey key "PLACE/acme/live/privkey.pem"
listen on 127.0.0.1 port {port} hostname mx.test
listen on 127.0.0.1 port {port2} tls-require pki mxkey hostname mx.test auth <t>
action out relay host "smtp://127.0.0.1:9"
match auth from any for any action out
"""
SECRET = "S3cret|Word: 9"


def login(daemon: Daemon, user: str, password: str) -> int:
    """The reply to AUTH PLAIN."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with daemon.smtp(daemon.port2) as client:
        client.starttls(context=context)
        client.ehlo()
        plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        return client.docmd("AUTH", f"PLAIN {plain}")[0]


def test_passwords_checked_by_a_program() -> None:
    """Service auth gets user and password as the client gave them; no log has the password."""
    entries: Entries = {"auth": {f"Bob:{SECRET}": ""}, "credentials": {"bob": "x"}}
    with world("good", entries, AUTH) as made:
        assert login(made.daemon, "Bob", SECRET) == 235
        assert login(made.daemon, "bob", SECRET) == 535
        assert login(made.daemon, "Bob", SECRET.lower()) == 535
        assert login(made.daemon, f"Bob:{SECRET[:2]}", SECRET[2:]) == 535
        assert "S3cret" not in made.daemon.log and "s3cret" not in made.daemon.log


def test_passwords_whose_hashes_a_program_knows() -> None:
    """Service credentials is asked by the user's name, in lower case as all keys are; the hash is checked here."""
    hashed = cli("smtpctl_ps", "encrypt", "correct horse").stdout.strip()
    entries: Entries = {"credentials": {"bob": hashed, "carol": f"carol:{hashed}"}}
    with world("good", entries, AUTH) as made:
        assert login(made.daemon, "bob", "correct horse") == 235
        assert login(made.daemon, "Carol", "correct horse") == 235
        assert login(made.daemon, "bob", "wrong") == 535
        assert login(made.daemon, "nobody", "correct horse") == 535


def test_a_stop_leaves_no_program_behind() -> None:
    """Nor one that reads nothing."""
    with world("deaf", {"domain": {}}) as made:
        (pid,) = program_pids(made.daemon)
    assert not Path(f"/proc/{pid}").exists()
