"""`smtpctl_ps explain` asks the live daemon, and its answer is what then happens."""

import json
from pathlib import Path

from support.daemon import cli, running
from support.sink import sinking

CONFIG = """
table virtuals {{ "list@example.com" = "b@relay.test, c@relay.test", "no@example.com" = "error:550 Gone away" }}
listen on 127.0.0.1 port {port} hostname mx.test
include "MORE"
action list lmtp "/nonexistent/lmtp" virtual <virtuals>
match from any for domain example.com action list
match from any for domain relay.test action out
""".replace("{{", "{").replace("}}", "}")
ASK = ("explain", "--from", "127.0.0.1", "--sender", "a@client.test", "--rcpt")


def test_the_answer_is_what_happens(tmp_path: Path) -> None:
    """A list is told with its rule, its entry and the smarthost; nothing is delivered; then the mail goes there."""
    more = tmp_path / "more.conf"
    with sinking() as sink:
        more.write_text(f'action out relay host "smtp://127.0.0.1:{sink.port}"\nmatch for domain x.test reject\n')
        with running(CONFIG.replace("MORE", str(more))) as daemon:
            lines = daemon.ctl(*ASK, "list@example.com").splitlines()
            assert lines[:4] == [
                "client 127.0.0.1 is localhost",
                "list@example.com",
                '  rule: line 6: action "list"',
                "  entry list@example.com in table virtuals: b@relay.test, c@relay.test",
            ]
            assert '=> b@relay.test by action "out": relay' in lines
            assert f"    to 127.0.0.1, 127.0.0.1 port {sink.port}, TLS where offered" in lines
            steps = [json.loads(line) for line in daemon.ctl("--json", *ASK, "list@example.com").splitlines()]
            assert [step["subject"] for step in steps if step["kind"] == "deliver"] == ["b@relay.test", "c@relay.test"]
            assert daemon.queued() == 0
            assert sink.mails == []
            with daemon.smtp() as client:
                client.sendmail("a@client.test", ["list@example.com"], "Subject: x\r\n\r\nx\r\n")
            daemon.wait_empty()
            assert sorted(to for mail in sink.mails for to in mail.recipients) == ["b@relay.test", "c@relay.test"]


def test_refusals_are_those_of_smtp(tmp_path: Path) -> None:
    """The reply that explain shows is the one that the client gets; a rule of an included file names it."""
    more = tmp_path / "more.conf"
    more.write_text("action out relay\nmatch from any for domain else.test reject\n")
    with running(CONFIG.replace("MORE", str(more))) as daemon:
        for recipient in ("no@example.com", "x@else.test", "missing@example.com"):
            last = daemon.ctl(*ASK, recipient).splitlines()[-1]
            with daemon.smtp() as client:
                client.ehlo()
                client.mail("a@client.test")
                code, text = client.rcpt(recipient)
            said = text.decode().removesuffix(f": <{recipient}>")  # smtp says of whom
            assert last == f"=> refused: {code} {said}"
        assert f"{more}, line 2: reject" in daemon.ctl(*ASK, "x@else.test")


def test_wrong_questions() -> None:
    """They are refused with a reason, by the command or by the daemon."""
    with running(CONFIG.replace('include "MORE"', "action out relay")) as daemon:
        state = ("--state-dir", str(daemon.state))
        done = cli("smtpctl_ps", *state, "explain", "--from", "here", "--sender", "", "--rcpt", "a@b.org")
        assert (done.returncode, done.stderr) == (1, 'smtpctl_ps: the client is an IP address or "local"\n')
        done = cli("smtpctl_ps", *state, *ASK, "a@@")
        assert (done.returncode, done.stderr) == (1, "smtpctl_ps: the sender or the recipient is not a valid address\n")
        assert cli("smtpctl_ps", *state, "explain", "--rcpt", "x").returncode == 255
