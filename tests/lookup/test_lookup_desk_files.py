"""Files that lookup reads at its start: tables, patterns, resolver settings."""

import os
from pathlib import Path

import pytest
from desk_world import World, condition, refused
from support.dns_server import DnsServer

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import (
    ActionSettings,
    ConditionSettings,
    LookupSettings,
    RuleSettings,
    TableSettings,
)  # fmt: skip
from smtpd_ps.lookup.files import FilesError, read_files
from smtpd_ps.runtime.loop import Loop


def asset(directory: Path, kind: str, name: str, data: bytes) -> tuple[m.Asset, int]:
    path = directory / name.replace("/", "_")
    path.write_bytes(data)
    return m.Asset(kind, name), os.open(path, os.O_RDONLY)  # type: ignore[arg-type]


def file_settings(*tables: str, resolver: str = "") -> LookupSettings:
    made = tuple(TableSettings(name, "file", "map", path=f"/etc/{name}") for name in tables)
    return LookupSettings("h", (), (), made, (), (), resolver)


def test_files(tmp_path: Path) -> None:
    """Tables and the resolver's files are read from descriptors, which are closed."""
    assets = [
        asset(tmp_path, "table", "t", b"a b\n"),
        asset(tmp_path, "resolv.conf", "/etc/resolv.conf", b"nameserver 192.0.2.1\n"),
        asset(tmp_path, "hosts", "/etc/hosts", b"192.0.2.2 h\n"),
    ]
    files = read_files(file_settings("t"), assets)
    assert files.tables["t"].get("A") == "b"
    assert files.resolver.servers == (("192.0.2.1", 53),)
    assert files.hosts.addresses == {"h": ("192.0.2.2",)}
    for _asset, fd in assets:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    other = [asset(tmp_path, "table", "t", b"a b\n")]
    assert read_files(file_settings("t", resolver="127.0.0.1:5353"), other).resolver.servers == (("127.0.0.1", 5353),)


def test_bad_files_are_all_named(tmp_path: Path) -> None:
    """Every fault is reported, with path and line."""
    assets = [asset(tmp_path, "table", "t", b"a b\nbad\n")]
    with pytest.raises(FilesError) as caught:
        read_files(file_settings("t", "u", resolver="nonsense"), assets)
    assert [error.split(":")[0] for error in caught.value.errors] == ["/etc/t", "table u", "resolver"]
    assert caught.value.errors[0].startswith("/etc/t:2: ")


def pattern_settings() -> LookupSettings:
    rule = RuleSettings((ConditionSettings("helo", table="p", regex=True),), "", 1)
    return LookupSettings(
        "h", (rule,), (), (TableSettings("p", "file", "map", path="/etc/p", uses=("regex",)),), (), ()
    )


def test_a_file_of_patterns(tmp_path: Path) -> None:
    """The table of a regex condition holds one pattern a line, with any characters in it."""
    data = b"# patterns\n(^|\\.)dyn[[:digit:]]\n\n[0-9]+: .*\n"
    files = read_files(pattern_settings(), [asset(tmp_path, "table", "p", data)])
    assert list(files.tables["p"].entries) == ["(^|\\.)dyn[[:digit:]]", "[0-9]+: .*"]
    assert files.tables["p"].kind == "list"


@pytest.mark.parametrize(
    ("data", "errors"),
    [
        (b"a\n(b\nc\n*\n",
         ('/etc/p:2: "(b" is not a regular expression: "(" without ")" at character 1',
          '/etc/p:4: "*" is not a regular expression: nothing to repeat at character 1')),
        (b"".join(b"%d(abcd){255}\n" % n for n in range(60)),
         ("/etc/p: the regular expressions together: with its repetitions written out it is too large",)),
    ],
)  # fmt: skip
def test_bad_patterns_are_named(tmp_path: Path, data: bytes, errors: tuple[str, ...]) -> None:
    """A line that is no pattern, and patterns that are too much together."""
    with pytest.raises(FilesError) as caught:
        read_files(pattern_settings(), [asset(tmp_path, "table", "p", data)])
    assert caught.value.errors == errors


def test_rules_with_patterns(loop: Loop, dns_server: DnsServer) -> None:
    """A regex condition decides about a recipient, and the cache keeps what it reads apart."""
    rule = RuleSettings(
        (condition("from-any"), condition("for-any"), ConditionSettings("mail-from", table="p", regex=True)), "out", 1
    )
    patterns = TableSettings("p", "inline", "list", (("^(bob|eve)?@", ""),))
    settings = LookupSettings("mx.example.com", (rule,), (ActionSettings("out", "relay"),), (patterns,), (), ())
    world = World(loop, dns_server, settings)
    world.connect(address="127.0.0.1")
    world.smtp.take()
    for sender in ("Bob@far.org", "", "EVE@x.org"):
        world.rcpt("x@elsewhere.org", sender=sender)
        assert isinstance(world.queue.take(), m.RcptAccept)
    world.rcpt("x@elsewhere.org", sender="robert@far.org")
    assert refused(world.smtp.take()) == (550, "Invalid recipient")
    world.checking.stop()
