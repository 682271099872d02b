"""The command lines of sendmail and the smtp client: what is taken, what is refused, and how they end."""

import io
import os
import sys
from pathlib import Path

import pytest

from smtpd_ps.cli import sendmail, smtp, smtp_options
from smtpd_ps.cli.offline_files import keep
from smtpd_ps.cli.sendmail_options import IGNORED, Mode, Options, OptionsError, parse_options
from smtpd_ps.cli.smtp_options import Server, TlsOptions
from smtpd_ps.pure.offline_mail import Envelope, OfflineError, parse_head

IGNORED_WORDS = "-Am -B 8BITMIME -bm -E -Efoo -e m -em -i -J -Jx -L tag -m -o i -oi -oem -odb -p ESMTP:host -x"


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("bob ann", Options(recipients=("bob", "ann"))),
        ("-ti -F Bob -f me bob", Options(name="Bob", sender="me", read_recipients=True, recipients=("bob",))),
        ("-tvS -rme@x.test", Options(sender="me@x.test", read_recipients=True, verbose=True, no_login=True)),
        ("-f <me@x.test> -f <>", Options(sender="")),
        ("-N never -R full -V x+2B", Options(notify=1, ret="FULL", envid="x+2B")),
        ("-N success,FAILURE,delay -R HDRS", Options(notify=14, ret="HDRS")),
        ("-bp", Options(mode=Mode.QUEUE)),
        ("-bi", Options(mode=Mode.ALIASES)),
        ("-b s", Options(mode=Mode.SMTP)),
        ("-bp -bm x", Options(recipients=("x",))),
        ("-q", Options(mode=Mode.RUN_QUEUE)),
        ("-q bob", Options(mode=Mode.RUN_QUEUE, recipients=("bob",))),
        ("--state-dir /s -- -t", Options(state_dir="/s", recipients=("-t",))),
        ("bob -t", Options(recipients=("bob", "-t"))),
        (f"{IGNORED_WORDS} bob", Options(recipients=("bob",))),
    ],
)
def test_options(words: str, options: Options) -> None:
    """As getopt(3) would read them; what changes nothing is taken."""
    assert parse_options(words.split()) == options


def test_every_letter_that_is_ignored_is_in_the_list() -> None:
    """The words of the test above are all that is taken and changes nothing."""
    assert {word[1] for word in IGNORED_WORDS.split() if word.startswith("-")} - {"b"} == set(IGNORED)


@pytest.mark.parametrize(
    "words",
    [
        ["-F", "Bob\nBcc: x"], ["-F", "Bob\r"], ["-F", "x" * 256], ["-f", "a\nb"], ["-f", "<a"], ["-f", "a b"],
        ["-N", "sometimes"], ["-N", "never,delay"], ["-N", ""], ["-R", "half"], ["-V", "a b"], ["-V", ""],
        ["-V", "x" * 101], ["-V", "a\r\nb"], ["-bd"], ["-bz"], ["-f"], ["-z"], ["-:"], ["--what"], ["--state-dir"],
    ],
)  # fmt: skip
def test_options_that_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """EX_USAGE, and one printable line that says why, before the usage."""
    with pytest.raises(OptionsError):
        parse_options(words)
    assert sendmail.main(words) == 64
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("sendmail: ") and said[0].isprintable() and said[1].startswith("usage: sendmail_ps ")


def run(
    words: list[str], message: bytes, state: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[tuple[Envelope, bytes]]]:
    """The exit status without a daemon, and what was kept."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(message)))
    status = sendmail.main(["--state-dir", str(state), *words])
    kept = []
    for path in (state / "spool" / "offline").iterdir():
        data = path.read_bytes()
        envelope, start = parse_head(path.name, data)
        kept.append((envelope, data[start:]))
    return status, kept


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory whose daemon does not run."""
    (tmp_path / "spool" / "offline").mkdir(parents=True)
    return tmp_path


def test_kept(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envelope and message as they would have been handed over."""
    words = ["-f", "me@x.test", "-N", "delay", "-R", "hdrs", "-V", "id", "Bob <bob@x.test>, ann"]
    status, kept = run(words, b"From: x\nDate: d\n\n\xff\n", state, monkeypatch)
    assert status == 0
    assert kept == [
        (Envelope("me@x.test", ("bob@x.test", "ann"), 8, "HDRS", "id", True), b"From: x\r\nDate: d\r\n\r\n\xff\r\n")
    ]


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        ([], b"", 64), (["-t"], b"Subject: x\n\n", 64), (["-t"], b"To: (\n\n", 65), (["a\r\nb"], b"", 65),
        (["a b"], b"", 65), (["-t", "x@y"], b"To: a <b c>\n\n", 65), (["-q"], b"", 70),
        (["-t"], b"To: " + b",".join(b"a%d" % number for number in range(1001)) + b"\n\n", 65),
    ],
)  # fmt: skip
def test_what_cannot_be_sent(
    words: list[str], message: bytes, status: int, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statuses of sysexits(3); nothing is kept."""
    assert run(words, message, state, monkeypatch) == (status, [])


def test_no_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that closed it has no message: EX_IOERR, EX_NOINPUT of the client."""
    monkeypatch.setattr(sys, "stdin", None)
    assert sendmail.main(["--state-dir", str(tmp_path), "bob"]) == 74
    assert smtp.main(["-s", "smtp://127.0.0.1:9", "bob"]) == 66
    assert capsys.readouterr().err.count("Bad file descriptor") == 2


def test_nowhere_to_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """EX_TEMPFAIL: the caller still has the message."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert sendmail.main(["--state-dir", str(tmp_path), "bob"]) == 75
    assert "cannot be kept" in capsys.readouterr().err


def test_keeping_fails_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write, a sync or a rename that fails leaves no file behind; a line break makes none at all."""
    envelope = Envelope("a", ("b",))

    def refuse(*_given: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.raises(OSError, match="No space"):
                keep(str(tmp_path), envelope, (b"x",))
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(OfflineError):
        keep(str(tmp_path), Envelope("a\nb", ("c",)), ())
    assert list(tmp_path.iterdir()) == []
    before = os.umask(0o777)
    try:
        name = keep(str(tmp_path), envelope, (b"x", b"y"))
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("mx.test", Server("mx.test")),
        ("mx.test:2525", Server("mx.test", 2525)),
        ("[::1]:26", Server("::1", 26)),
        ("smtps://mx.test", Server("mx.test", 465, "implicit-verify")),
        ("SMTP+TLS://a:b:c@mx.test", Server("mx.test", 25, "require-verify", False, "a", "b:c")),
        ("smtp+notls://[192.0.2.1]", Server("192.0.2.1", 25, "never")),
        ("lmtp://mx.test:24", Server("mx.test", 24, "opportunistic", True)),
        ("lmtp+tls://mx.test:24", Server("mx.test", 24, "require-verify", True)),
        ("lmtp+notls://mx.test:24", Server("mx.test", 24, "never", True)),
    ],
)
def test_servers(text: str, server: Server) -> None:
    """The URLs of -s."""
    assert smtp_options.parse_server(text) == server


@pytest.mark.parametrize(
    "words",
    [
        [], ["-s", "ftp://x", "a"], ["-s", "lmtp://x", "a"], ["-s", "smtp+notls://a:b@x", "a"],
        ["-s", "smtps://a@x", "a"],
        ["-s", "x:99999", "a"], ["-s", "", "a"], ["-T", "what", "a"], ["-T", "nosni=1", "a"], ["-T", "cafile", "a"],
        ["-T", "protocols=SSLv3", "a"], ["-T", "", "a"], ["-a", "f", "-s", "smtp+notls://x", "a"], ["-z"], ["a\nb"],
    ],
)  # fmt: skip
def test_client_options_that_are_refused(words: list[str]) -> None:
    """Each with a line that says why."""
    with pytest.raises(smtp_options.OptionsError) as refused:
        smtp_options.parse_options(words)
    assert str(refused.value).isprintable()


def test_client_options() -> None:
    """TLS parameters by commas or blanks, from several -T; -C is noverify."""
    options = smtp_options.parse_options(["-Cv", "-T", "cafile=/c nosni", "-T", "protocols=TLSv1.3,ciphers=A:B", "-n"])
    assert options.tls == TlsOptions("/c", "A:B", ("TLSv1.3",), "", no_sni=True, no_verify=True)
    assert options.no_action and options.verbose and options.server == Server()
