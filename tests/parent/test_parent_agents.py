"""What the parent makes of delivery's names: users, folders, mailboxes."""

import os
import pwd
from pathlib import Path

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import Account, Process
from smtpd_ps.parent.accounts import Userbases
from smtpd_ps.parent.agents import AgentRefusal, Agents, writable_root
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop


class Asked:
    def __init__(self, tmp_path: Path, privileged: bool = True) -> None:
        self.answers: list[m.Message] = []
        actions = {
            "box": ActionSettings("box", "maildir", maildir_path=str(tmp_path / "box")),
            "relay": ActionSettings("relay", "relay"),
            "spool": ActionSettings("spool", "mbox"),
            "hosted": ActionSettings("hosted", "maildir", userbase_table="people"),
        }
        self.queries: list[m.UserbaseQuery] = []
        self.userbases = Userbases(Loop(), actions, self.queries.append)
        self.agents = Agents(
            Loop(), Log(Process.PARENT, foreground=True), actions, "mx.test", privileged, True,
            lambda message, *fds: self.answers.append(message), frozenset({"_sps_queue"}), str(tmp_path),
            userbases=self.userbases,
        )  # fmt: skip

    def refusal(self, user: str, action: str) -> m.AgentRefused:
        self.agents.start(m.AgentStart(1, user, action))
        (answer,) = self.answers
        assert isinstance(answer, m.AgentRefused)
        assert not self.agents.running
        return answer


@pytest.mark.parametrize(
    ("user", "action", "temporary"),
    [
        ("root", "box", False),
        ("daemon", "box", False),
        ("no-such-user-here", "box", False),
        ("../etc/passwd", "box", False),
        ("a\nb", "box", False),
        ("nobody", "relay", True),
        ("nobody", "no-such-action", True),
    ],
)
def test_names_that_get_no_agent(tmp_path: Path, user: str, action: str, temporary: bool) -> None:
    """Root, system users, unknown users and foreign actions are refused; nothing is started."""
    assert Asked(tmp_path).refusal(user, action).temporary is temporary


@pytest.mark.parametrize(
    ("user", "account", "temporary"),
    [
        ("bob", None, False),
        ("bob", Account(0, 100, "/root"), True),
        ("bob", Account(99, 100, "/h"), True),
        ("bob", Account(5000, 0, "/h"), True),
        ("bob", Account(5000, 5000, "h"), True),
        ("../bob", Account(5000, 5000, "/h"), False),
    ],
)
def test_users_of_a_userbase_that_get_no_agent(
    tmp_path: Path, user: str, account: Account | None, temporary: bool
) -> None:
    """Lookup says who they are, and may not say root, a low uid or a relative home; passwd is not asked."""
    asked = Asked(tmp_path)
    asked.agents.start(m.AgentStart(1, user, "hosted"))
    assert asked.answers == []
    (query,) = asked.queries
    assert (query.action, query.user) == ("hosted", user)
    asked.userbases.answered(m.UserbaseInfo(query.query, account))
    (answer,) = asked.answers
    assert isinstance(answer, m.AgentRefused)
    assert answer.temporary is temporary
    assert not asked.agents.running


def test_the_daemons_own_users_get_no_mail(tmp_path: Path) -> None:
    """A mail to _sps_queue must not run code as the queue's user."""
    assert not Asked(tmp_path).refusal("_sps_queue", "box").temporary


def test_unprivileged_delivers_to_oneself_only(tmp_path: Path) -> None:
    """Without root there is one user, and no other can be served."""
    if pwd.getpwuid(os.getuid()).pw_name == "nobody":
        pytest.skip("this test runs as nobody")
    assert "unprivileged" in Asked(tmp_path, privileged=False).refusal("nobody", "box").text


@pytest.mark.parametrize("plant", ["symlink", "hardlink", "directory", "fifo"])
def test_an_mbox_that_is_no_plain_file_is_refused(tmp_path: Path, plant: str) -> None:
    """A link or special file in the mail spool never reaches an agent, and is not followed (THREATS: mailbox paths)."""
    target, box = tmp_path / "target", tmp_path / "nobody"
    target.write_text("precious")
    match plant:
        case "symlink":
            box.symlink_to(target)
        case "hardlink":
            os.link(target, box)
        case "directory":
            box.mkdir()
        case _:
            os.mkfifo(box)
    assert Asked(tmp_path).refusal("nobody", "spool").temporary
    assert target.read_text() == "precious"


def test_writable_root_is_the_deepest_existing_folder(tmp_path: Path) -> None:
    """An agent may write below the fixed part of its path, and no higher than needed."""
    home = tmp_path / "home"
    home.mkdir()
    assert writable_root("", str(home), "bob") == str(home)
    (home / "Maildir").mkdir()
    assert writable_root("", str(home), "bob") == str(home / "Maildir")
    assert writable_root(f"{tmp_path}/mail/%{{user.username}}/%{{rcpt.domain}}", str(home), "bob") == str(tmp_path)
    (tmp_path / "mail" / "bob").mkdir(parents=True)
    assert writable_root(f"{tmp_path}/mail/%{{user.username}}/%{{rcpt}}", str(home), "bob") == f"{tmp_path}/mail/bob"


def test_the_whole_file_system_is_never_writable() -> None:
    """A path of which nothing exists is refused, not widened to /."""
    with pytest.raises(AgentRefusal) as refused:
        writable_root("/no-such-folder-here/box", "/home/x", "bob")
    assert refused.value.temporary
