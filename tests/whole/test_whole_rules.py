"""Match rules in the real daemon: what a client is answered, and where its mail goes."""

import contextlib
import os
from collections.abc import Iterator

from support.daemon import Daemon, cli, running, wait_until
from support.sink import sinking

MESSAGE = "From: a@client.test\r\nSubject: rules\r\n\r\nbody\r\n"

PATTERNS = """
table spammers "{dir}/spammers"
listen on 127.0.0.1 port {port} tag OUTSIDE
action out relay host "smtp://127.0.0.1:SINK"
match from any for any mail-from regex <spammers> reject
match from src regex "^127[.]0[.]0[.][0-9]+$" for domain regex { "(^|[.])ours[.]test$", "^x{3}$" } tag regex "^out" \\
    action out
"""


@contextlib.contextmanager
def prepared(config: str, **files: str) -> Iterator[Daemon]:
    """A daemon that is not started yet, with files in its directory."""
    daemon = Daemon(config)
    for name, text in files.items():
        (daemon.dir / name).write_text(text)
    try:
        yield daemon
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        daemon.remove()


def replies(daemon: Daemon, sender: str, rcpt: str) -> tuple[int, bytes]:
    """What RCPT is answered in a session of its own."""
    with daemon.smtp() as client:
        client.ehlo()
        assert client.mail(sender)[0] == 250
        return client.rcpt(rcpt)


def test_rules_with_patterns() -> None:
    """Patterns in a file and in place decide about live sessions; a hostile address costs no time."""
    spammers = "# a pattern a line\n^(a+)+@\n[[:digit:]]{6,}\n"
    hostile = "a" * 60 + "!@client.test"
    with sinking() as sink, prepared(PATTERNS.replace("SINK", str(sink.port)), spammers=spammers) as daemon:
        daemon.start()
        for sender, rcpt, code in (
            ("carol@client.test", "b@ours.test", 250),
            ("carol@client.test", "b@Sub.Ours.test", 250),
            ("carol@client.test", "b@xxx", 250),
            (hostile, "b@ours.test", 250),
            ("AAA@client.test", "b@ours.test", 550),
            ("x123456@client.test", "b@ours.test", 550),
            ("carol@client.test", "b@notours.test", 550),
            ("carol@client.test", "b@xxxx", 550),
        ):
            assert replies(daemon, sender, rcpt)[0] == code, (sender, rcpt)
        with daemon.smtp() as client:
            client.sendmail("carol@client.test", ["b@ours.test"], MESSAGE)
        wait_until("it arrives", lambda: bool(sink.mails))
        assert daemon.stop() == 0


def test_rules_on_the_clients_name() -> None:
    """from rdns, with and without a list, about a client whose name the hosts file tells."""
    config = """
listen on 127.0.0.1 port {port}
action out relay host "smtp://127.0.0.1:SINK"
match from rdns regex "^local" for domain pattern.test action out
match from rdns localhost for domain list.test action out
match from rdns for domain any.test action out
match !from rdns for any action out
match from rdns "*.elsewhere" for any action out
"""
    with sinking() as sink, running(config.replace("SINK", str(sink.port))) as daemon:
        for domain, code in (("pattern.test", 250), ("list.test", 250), ("any.test", 250), ("other.test", 550)):
            assert replies(daemon, "a@client.test", f"b@{domain}")[0] == code, domain


def test_a_relay_shows_another_sender() -> None:
    """mail-from takes the sender's place in MAIL FROM; the null sender stays."""
    config = """
listen on 127.0.0.1 port {port}
action whole relay host "smtp://127.0.0.1:SINK" mail-from list@shown.test
action kept relay host "smtp://127.0.0.1:SINK" mail-from "@shown.test"
match from any for domain whole.test action whole
match from any for any action kept
"""
    with sinking() as sink, running(config.replace("SINK", str(sink.port))) as daemon:
        with daemon.smtp() as client:
            for sender, domain in (("a+t@client.test", "whole.test"), ("a+t@client.test", "x.test"), ("", "x.test")):
                client.sendmail(sender, [f"b@{domain}"], MESSAGE)
        wait_until("three arrive", lambda: len(sink.mails) == 3)
        assert sorted(mail.sender for mail in sink.mails) == ["", "a+t@shown.test", "list@shown.test"]
        daemon.wait_empty()


def test_relay_to_hosts_of_a_table() -> None:
    """The hosts stand in a file, a URL a line; a bad one stops the start, with its line."""
    config = """
table hosts "{dir}/hosts"
listen on 127.0.0.1 port {port}
action out relay host <hosts>
match from any for any action out
"""
    with sinking() as sink, prepared(config, hosts=f"smtp+notls://127.0.0.1:{sink.port}\n") as daemon:
        daemon.start()
        with daemon.smtp() as client:
            client.sendmail("a@client.test", ["b@x.test", "c@y.test"], MESSAGE)
        wait_until("it arrives", lambda: bool(sink.mails))
        daemon.wait_empty()
        assert daemon.stop() == 0
        (daemon.dir / "hosts").write_text("mx1\nsntp://mx2\n")
        daemon.start(wait=False)
        assert daemon.process is not None
        assert daemon.process.wait(30) == 1
        daemon.wait_logged(f'{daemon.dir}/hosts:2: "sntp://mx2": unknown protocol "sntp"')


UPDATED = """
table domains "{dir}/domains"
table unused "{dir}/domains"
listen on 127.0.0.1 port {port}
action out relay host "smtp://127.0.0.1:SINK"
match from any for domain <domains> action out
"""


def test_update_table() -> None:
    """smtpctl_ps update table: read by confined lookup, kept as it was where the new one is wrong, and told."""
    with sinking() as sink, prepared(UPDATED.replace("SINK", str(sink.port)), domains="one.test\n") as daemon:
        daemon.start()
        path = daemon.dir / "domains"

        def update(name: str = "domains") -> tuple[int, str, str]:
            done = cli("smtpctl_ps", "--state-dir", str(daemon.state), "update", "table", name)
            return done.returncode, done.stdout, done.stderr

        with daemon.smtp() as client:
            client.ehlo()
            client.mail("a@client.test")
            assert client.rcpt("b@two.test")[0] == 550
            path.write_text("one.test\ntwo.test\n")
            assert client.rcpt("b@two.test")[0] == 550
            assert update() == (0, "table domains: 2 entries\n", "")
            assert client.rcpt("b@two.test")[0] == 250
            path.write_bytes(b"three.test\n\xff\n")
            assert update() == (1, "", f"smtpctl_ps: {path}:2: not UTF-8 text\n")
            assert (client.rcpt("b@two.test")[0], client.rcpt("b@three.test")[0]) == (250, 550)
            path.unlink()
            assert update() == (1, "", f"smtpctl_ps: {path}: No such file or directory\n")
            assert update("unused") == (1, "", "smtpctl_ps: no table unused in a file is in use\n")
            assert client.rcpt("b@one.test")[0] == 250
        if os.getuid() == 0:
            daemon.ctl("audit")
        assert daemon.stop() == 0


def test_a_bad_pattern_in_a_file_stops_the_start() -> None:
    """The log names the file and the line."""
    with prepared(PATTERNS.replace("SINK", "25"), spammers="^ok$\n(unclosed\n") as daemon:
        daemon.start(wait=False)
        assert daemon.process is not None
        assert daemon.process.wait(30) == 1
        said = f'{daemon.dir}/spammers:2: "(unclosed" is not a regular expression: "(" without ")" at character 1'
        daemon.wait_logged(said)
