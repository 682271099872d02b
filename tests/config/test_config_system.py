"""config/system: files, names and services of the real host."""

import socket
from pathlib import Path

import pytest

from smtpd_ps.config.load import load
from smtpd_ps.config.system import SystemEnvironment


def environment(tmp_path: Path) -> SystemEnvironment:
    return SystemEnvironment(
        lambda: {"lo": ("127.0.0.1",)},
        lambda name: ("lo",) if name == "loops" else (),
        mailname_path=str(tmp_path / "mailname"),
    )


def test_text_is_left_as_it_is(tmp_path: Path) -> None:
    """Line ends are not translated: the lexer is to see a carriage return."""
    (tmp_path / "f").write_bytes(b"a\r\nb")
    assert environment(tmp_path).read_text(str(tmp_path / "f")) == "a\r\nb"


def test_unreadable_text(tmp_path: Path) -> None:
    """A missing file and a directory are an OSError, rubbish a UnicodeError."""
    (tmp_path / "f").write_bytes(b"\xff")
    with pytest.raises(UnicodeError):
        environment(tmp_path).read_text(str(tmp_path / "f"))
    for name in ("missing", "."):
        with pytest.raises(OSError, match=r"No such file|Is a directory"):
            environment(tmp_path).read_text(str(tmp_path / name))


def test_endless_file(tmp_path: Path) -> None:
    """A file over 16 MiB is refused, not read into memory."""
    with pytest.raises(OSError, match="larger than 16 MiB"):
        environment(tmp_path).read_text("/dev/zero")


def test_mailname(tmp_path: Path) -> None:
    """The first line of mailname is the server's name; without it the host's."""
    env = environment(tmp_path)
    assert env.hostname()
    (tmp_path / "mailname").write_text("mx.example.org\nsecond\n")
    assert env.hostname() == "mx.example.org"
    (tmp_path / "mailname").write_text("\n")
    assert env.hostname() != ""


def test_names_and_services(tmp_path: Path) -> None:
    """Addresses resolve to themselves; unknown services and names are nothing, not a crash."""
    env = environment(tmp_path)
    assert env.resolve("127.0.0.1") == ("127.0.0.1",)
    assert env.service_port("smtp") == socket.getservbyname("smtp", "tcp") == 25
    assert env.service_port("no-such-service") is None
    assert env.service_port("a\0b") is None
    assert env.resolve("a" * 70 + ".invalid") == ()


def test_load_from_disk(tmp_path: Path) -> None:
    """A file, an included file and an interface group, end to end."""
    (tmp_path / "more").write_text("match from any for any reject\n")
    (tmp_path / "smtpd.conf").write_text(f'listen on loops\ninclude "{tmp_path}/more"\n')
    conf = load(str(tmp_path / "smtpd.conf"), environment(tmp_path))
    assert conf.listeners[0].addresses == ("127.0.0.1",)
    assert conf.rules[0].where.path == f"{tmp_path}/more"
