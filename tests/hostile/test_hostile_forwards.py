"""Files of targets that are hostile: what users write into .forward, and what stands where aliases include a file."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, wait_until
from support.hostile import Target, Watch, Wire
from support.sink import sinking
from support.users import ensure_daemon_users, ensure_user_with_home

CONFIG = """
table aliases file:{dir}/aliases
listen on 127.0.0.1 port {port} hostname mx.test
action users maildir alias <aliases>
action out relay host "smtp+notls://127.0.0.1:SINK"
match from any for domain "users.test" action users
match from local for any action out
"""
USER = "spsfwda"
LINKS = {"a link to shadow": "/etc/shadow", "a link to itself": "lists/a link to itself", "a device": "/dev/zero"}
LISTS: dict[str, bytes] = {
    "two megabytes": b"# x\n" * 500_000,
    "ten thousand and one": b"".join(b"u%d@outside.test\n" % number for number in range(10_001)),
    "rubbish": bytes(range(128, 256)) * 100,
    "NULs": bytes(5000) + b"\n" + b"\0\n" * 5000,
    "an endless line": b"\\\n" * 100_000,
    "quotes": b'"' * 50_000,
    "includes itself": b":include:DIR/lists/includes itself\n",
    "passwd": b":include:/etc/passwd\nroot:x:0:0::/root:/bin/sh\n",
    "escapes": b":include:/\x1b[2Jsmtp: forged\rsmtp: forged\nx\x1b[2J y\n",
    "commas": b"," * 100_000,
}


@pytest.fixture(scope="module")
def running_users() -> Iterator[Target]:
    """One daemon for all of this file; a list for each case."""
    if os.getuid() != 0:
        pytest.skip("needs root: users with homes")
    ensure_daemon_users()
    home = ensure_user_with_home(USER)
    with sinking() as sink:
        daemon = Daemon(CONFIG.replace("SINK", str(sink.port)))
        lists = daemon.dir / "lists"
        lists.mkdir()
        names = [*LISTS, *LINKS, "a folder", "a fifo", "a socket"]
        for name, content in LISTS.items():
            (lists / name).write_bytes(content.replace(b"DIR", str(daemon.dir).encode()))
        for name, to in LINKS.items():
            (lists / name).symlink_to(to.replace("lists", str(lists)))
        (lists / "a folder").mkdir()
        os.mkfifo(lists / "a fifo")
        aliases = [f"list{number}: :include:{lists}/{name}\n" for number, name in enumerate(names)]
        (daemon.dir / "aliases").write_text("".join(aliases) + f"control: :include:{daemon.state}/run/control.sock\n")
        try:
            daemon.start()
            yield Target(daemon, sink, Watch(daemon))
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def users(running_users: Target) -> Iterator[Target]:
    """The daemon, whose health is checked after each test."""
    running_users.sink.mails.clear()
    yield running_users
    running_users.watch.check()


def rcpt(users: Target, recipient: str) -> bytes:
    """The reply to this recipient."""
    with Wire(("127.0.0.1", users.daemon.port)) as wire:
        wire.hello()
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        return wire.say(f"RCPT TO:<{recipient}@users.test>")


@pytest.mark.parametrize("name", [*LISTS, *LINKS, "a folder", "a fifo"])
def test_hostile_includes(users: Target, name: str) -> None:
    """A list that cannot be one is no recipient, at once, and nothing of the file comes back to the client."""
    number = [*LISTS, *LINKS, "a folder", "a fifo"].index(name)
    answer = rcpt(users, f"list{number}")
    assert answer[:1] in b"45", answer
    assert answer.endswith(f": <list{number}@users.test>".encode())
    assert rcpt(users, "control")[:1] in b"45"
    assert rcpt(users, USER).startswith(b"250 ")
    users.taken(0)


FORWARDS: dict[str, Callable[[Path], object]] = {
    "a link to shadow": lambda path: path.symlink_to("/etc/shadow"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a fifo": os.mkfifo,
    "a folder": Path.mkdir,
    "a file of 1 GiB": lambda path: (path.touch(), os.truncate(path, 1 << 30)),
    "rubbish": lambda path: path.write_bytes(bytes(range(128, 256)) * 10),
    "NULs": lambda path: path.write_bytes(b"x@outside.test\n" + bytes(3000)),
    "a hundred and one": lambda path: path.write_text("".join(f"u{number}@o.test\n" for number in range(101))),
    "escapes": lambda path: path.write_bytes(b"|echo \x1b[2J\rsmtp: forged\n"),
    "a reply": lambda path: path.write_bytes(b"error:250 2.0.0 Ok\n"),
    "a folded reply": lambda path: path.write_bytes(b"error:550 no\\\n250 yes\n:include:/etc/passwd\n"),
    "quotes": lambda path: path.write_bytes(b'"' * 4001),
    "backslashes": lambda path: path.write_bytes(b"\\" * 4001),
    "an include of shadow": lambda path: path.write_bytes(b":include:/etc/shadow\n"),
    "writable by all": lambda path: (path.write_text("x@outside.test\n"), path.chmod(0o666)),
}
UNSAFE = ("a link to shadow", "a link to a device", "a link to itself", "a fifo", "a folder", "writable by all")
# A reply of a user's own is one line; an include is left out, and the mail stays here. The others may be mended.
CODES = dict.fromkeys(UNSAFE, b"524 ") | {"a folded reply": b"550 no250 yes: ", "an include of shadow": b"250 "}


@pytest.mark.parametrize("what", FORWARDS)
def test_hostile_forwards(users: Target, what: str) -> None:
    """One user's file costs his mail at most: no other's, and not the daemon."""
    path = Path(f"~{USER}").expanduser() / ".forward"
    wait_until("the last one is forgotten", lambda: rcpt(users, USER).startswith(b"250 "))
    code = CODES.get(what, b"424 ")
    FORWARDS[what](path)
    try:
        if not path.is_symlink():
            shutil.chown(path, USER, USER)
        wait_until(f"{code!r}", lambda: rcpt(users, USER).startswith(code))  # lookup knows the old one for 2 s
        answer = rcpt(users, USER)
        assert b"forged" not in answer and b"root" not in answer
        assert rcpt(users, "nobody-at-all").startswith(b"5")
        users.watch.serves()
    finally:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    users.taken(0)
