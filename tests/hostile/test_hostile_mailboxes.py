"""Hostile local users and addresses: a writer of mail that follows no link out of the mailbox it was given.

Each case lays a trap in a mailbox, sends a message, and sees that nothing was written elsewhere.
"""

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_servers import Outgoing
from support.daemon import Daemon, wait_until
from support.hostile import Watch, Wire
from support.sink import sinking
from support.users import ensure_daemon_users, ensure_mail_user

CONFIG = """
table users {{ "root@box.test" = root, "daemon@box.test" = daemon, "queue@box.test" = "_sps_queue", "@" = "USER" }}
listen on 127.0.0.1 port {port} hostname mx.test
action back relay host "smtp+notls://127.0.0.1:SINK"
action box maildir "HOME/box" virtual <users>
action byrcpt maildir "HOME/by/%{rcpt}" virtual <users>
action bydest maildir "HOME/by/%{dest.user}" virtual <users>
action raw maildir "HOME/raw/%{sender:raw}/x" virtual <users>
action file mbox virtual <users>
match from any for domain "client.test" action back
match from any for domain "box.test" action box
match from any for domain "rcpt.test" action byrcpt
match from any for domain "dest.test" action bydest
match from any for domain "raw.test" action raw
match from any for domain "mbox.test" action file
"""


class Boxes(Outgoing):
    """The daemon, the home of its one mail user, and a place outside of it that this user may write."""

    home: Path
    outside: Path
    user: str

    @property
    def box(self) -> Path:
        """The Maildir of box.test."""
        return self.home / "box"

    def own(self, path: Path) -> None:
        """Give a file to the mail user."""
        shutil.chown(path, self.user, self.user)

    def folder(self, path: Path) -> Path:
        """Make a folder of the mail user."""
        path.mkdir(parents=True)
        self.own(path)
        return path

    def files(self) -> list[Path]:
        """Every file below the home that is no folder."""
        return [path for path in self.home.rglob("*") if not path.is_dir()]

    def delivered(self) -> list[Path]:
        """Every file of it once nothing is under way: a Maildir's move from tmp to new is not seen halfway."""
        wait_until("the queue is empty", lambda: self.watch.queued() == 0)
        return self.files()


@pytest.fixture(scope="module")
def running_boxes() -> Iterator[Boxes]:
    """One daemon for all of this file."""
    if os.getuid() != 0:
        pytest.skip("needs root: agents become mail users")
    ensure_daemon_users()
    user = ensure_mail_user()
    place = Path("/var/tmp") / f"sps-boxes-{os.getpid()}"
    place.mkdir()
    home, outside = place / "home", place / "outside"
    with sinking() as sink:
        config = CONFIG.replace("SINK", str(sink.port)).replace("HOME", str(home)).replace("USER", user)
        daemon = Daemon(config.replace("{{", "{").replace("}}", "}"))
        try:
            home.mkdir()
            outside.mkdir()
            daemon.start()
            boxes = Boxes(daemon, sink, Watch(daemon), None, "")  # type: ignore[arg-type]
            boxes.home, boxes.outside, boxes.user = home, outside, user
            yield boxes
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()
            shutil.rmtree(place)


@pytest.fixture
def boxes(running_boxes: Boxes) -> Iterator[Boxes]:
    """Home and outside empty; nothing may be outside afterwards."""
    for path in (running_boxes.home, running_boxes.outside):
        shutil.rmtree(path)
        running_boxes.folder(path)
    running_boxes.sink.mails.clear()
    yield running_boxes
    wait_until("the queue is empty", lambda: running_boxes.watch.queued() == 0)
    # The next test's mailbox is another one: its agent must begin anew. A lost agent is no lost child.
    agents = {name: pid for name, pid in running_boxes.daemon.pids().items() if name.startswith("agent")}
    for pid in agents.values():
        with contextlib.suppress(ProcessLookupError):  # it had nothing to do any more
            os.kill(pid, signal.SIGKILL)
    running_boxes.daemon.wait_gone(agents)
    running_boxes.watch.stats()  # delivery has answered, and so has seen that they are gone
    assert list(running_boxes.outside.rglob("*")) == [], "it wrote outside of the mailbox"
    running_boxes.watch.check()


def test_a_plain_mailbox(boxes: Boxes) -> None:
    """Without a trap the message is there: the other tests could fail."""
    boxes.submit("b@box.test")
    wait_until("it is there", lambda: len(list(boxes.box.glob("new/*"))) == 1)


def test_a_maildir_that_was_replaced(boxes: Boxes) -> None:
    """An agent confined to the folder that was there cannot write to the new one: the next attempt gets another."""
    boxes.folder(boxes.box)
    boxes.submit("b@box.test")
    wait_until("it is there", lambda: len(list(boxes.box.glob("new/*"))) == 1)
    boxes.box.rename(boxes.home / "old")
    boxes.submit("b@box.test")
    wait_until("it was tried", lambda: all(row.tries for row in boxes.rows()))

    def there() -> bool:
        boxes.watch.schedule_all()
        return len(list(boxes.box.glob("new/*"))) == 1

    wait_until("it is there", there)


@pytest.mark.parametrize("part", ["tmp", "new"])
def test_a_link_out_of_the_maildir(boxes: Boxes, part: str) -> None:
    """tmp or new is a link to a folder that the user may write: the message waits."""
    for name in ("tmp", "new", "cur"):
        if name != part:
            boxes.folder(boxes.box / name)
    boxes.own(boxes.box)
    (boxes.box / part).symlink_to(boxes.outside)
    boxes.submit("b@box.test")
    assert boxes.kept()[0].error
    assert not list(boxes.box.glob("new/*"))


def test_the_maildir_is_a_link_to_a_folder_of_root(boxes: Boxes) -> None:
    """The writer is the user, so that it can write there no more than the user."""
    target = boxes.home / "of-root"
    target.mkdir(mode=0o755)
    boxes.box.symlink_to(target)
    boxes.submit("b@box.test")
    boxes.kept()
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("kind", ["root's folder", "fifo", "file", "socket", "dangling link", "link to itself"])
def test_a_maildir_that_is_none(boxes: Boxes, kind: str) -> None:
    """The message waits; the agent neither hangs nor ends the daemon."""
    match kind:
        case "root's folder":
            boxes.box.mkdir(mode=0o700)
        case "fifo":
            os.mkfifo(boxes.box)
        case "file":
            boxes.box.write_text("mine")
        case "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(boxes.box))
        case "dangling link":
            boxes.box.symlink_to(boxes.outside / "nothing" / "here")
        case "link to itself":
            boxes.box.symlink_to(boxes.box)
    boxes.submit("b@box.test")
    assert boxes.kept()[0].error


@pytest.mark.parametrize("part", ["tmp", "new"])
@pytest.mark.parametrize("kind", ["fifo", "file", "root's folder"])
def test_parts_of_a_maildir_that_are_none(boxes: Boxes, part: str, kind: str) -> None:
    """The same for what is in it."""
    for name in ("tmp", "new", "cur"):
        if name != part:
            boxes.folder(boxes.box / name)
    boxes.own(boxes.box)
    match kind:
        case "fifo":
            os.mkfifo(boxes.box / part)
        case "file":
            (boxes.box / part).write_text("mine")
        case _:
            (boxes.box / part).mkdir(mode=0o700)
    boxes.submit("b@box.test")
    boxes.kept()


@pytest.mark.parametrize("who", ["root", "daemon", "queue"])
def test_root_and_system_users_get_no_mail(boxes: Boxes, who: str) -> None:
    """No agent is started for them: the mail comes back."""
    boxes.submit(f"{who}@box.test")
    assert "does not receive mail" in boxes.bounce().as_string()
    assert boxes.files() == []
    assert not list(Path("/root").glob("Maildir"))


TRAVERSAL = ["../../etc", "..", "a/../../b", "a..b", ".a", "a.", "/../x"]
ODD = ["a/b", "/etc/passwd", "~root", "%{sender}", "`id`", "$HOME", "|id", "*", "-rf", "a+/b", "&", "#x", "%2e%2e/x"]


@pytest.mark.parametrize("local", TRAVERSAL)
@pytest.mark.parametrize("domain", ["rcpt.test", "dest.test"])
def test_addresses_that_lead_upwards(boxes: Boxes, local: str, domain: str) -> None:
    """Two dots in a row are no address."""
    with Wire(("127.0.0.1", boxes.daemon.port)) as wire:
        wire.hello()
        assert wire.say(f"MAIL FROM:<{local}@client.test>").startswith(b"553 ")
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{local}@{domain}>").startswith(b"501 ")


@pytest.mark.parametrize("domain", ["rcpt.test", "dest.test"])
def test_addresses_that_are_no_paths(boxes: Boxes, domain: str) -> None:
    """A local part makes one component of the path, whatever is in it, and is expanded once."""
    boxes.folder(boxes.home / "by")
    boxes.submit(*(f"{local}@{domain}" for local in ODD))
    wait_until("all are there", lambda: len(list(boxes.home.glob("by/*/new/*"))) == len(ODD))
    assert len(boxes.delivered()) == len(ODD)
    for path in boxes.home.glob("by/*"):
        assert not set(path.name) & set("/%{}`$|*~#&"), path.name
        assert "client.test" not in path.name, "it was expanded twice"


@pytest.mark.parametrize("sender", ["a/b@client.test", "/etc/x@client.test", "/x/y/z@client.test", ""])
def test_raw_values_stay_below_the_mailbox(boxes: Boxes, sender: str) -> None:
    """`:raw` lets slashes through, as it says; upwards leads nothing, and out of the fixed part neither."""
    boxes.folder(boxes.home / "raw")
    boxes.submit("b@raw.test", sender=sender)
    (path,) = boxes.delivered()
    assert (boxes.home / "raw") in path.parents


def test_an_address_too_long_for_a_file(boxes: Boxes) -> None:
    """The name of a folder has an end: the message waits."""
    boxes.folder(boxes.home / "by")
    boxes.submit("a" * 255 + "@rcpt.test")
    boxes.kept()
    assert boxes.files() == []


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "folder", "other's file"])
def test_a_mailbox_file_that_is_a_trap(boxes: Boxes, kind: str) -> None:
    """The parent opens an mbox only if it is a plain file of that user, with one name."""
    mailbox = Path("/var/mail") / boxes.user
    if mailbox.exists():
        pytest.skip(f"{mailbox} is there already")
    secret = boxes.home / "secret"
    secret.write_text("root's\n")
    try:
        match kind:
            case "symlink":
                mailbox.symlink_to(secret)
            case "hard link":
                boxes.own(secret)
                os.link(secret, mailbox)
            case "fifo":
                os.mkfifo(mailbox)
                boxes.own(mailbox)
            case "folder":
                mailbox.mkdir()
            case _:
                mailbox.write_text("")
        boxes.submit("b@mbox.test")
        boxes.kept()
        assert secret.read_text() == "root's\n"
    finally:
        if mailbox.is_dir() and not mailbox.is_symlink():
            mailbox.rmdir()
        else:
            mailbox.unlink(missing_ok=True)
