"""What the parent makes of delivery's names: users, folders, mailboxes."""

import os
import pwd
import shlex
from pathlib import Path

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import ALIAS_USER
from smtpd_ps.contract.settings import ActionSettings, AgentSettings
from smtpd_ps.contract.values import Account, AgentSource, Process
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
            "mda": ActionSettings("mda", "mda", mda_command="cat", alias_table="t"),
            "hosted": ActionSettings("hosted", "maildir", userbase_table="people"),
        }
        self.queries: list[m.UserbaseQuery] = []
        self.userbases = Userbases(Loop(), actions, self.queries.append)
        self.agents = Agents(
            Loop(), Log(Process.PARENT, foreground=True), actions, "mx.test", privileged, True,
            lambda message, *fds: self.answers.append(message), frozenset({"_sps_queue"}), str(tmp_path),
            userbases=self.userbases,
        )  # fmt: skip

    def refusal(self, user: str, action: str, source: AgentSource = "action") -> m.AgentRefused:
        self.agents.start(m.AgentStart(1, user, action, source))
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


@pytest.mark.parametrize(
    ("user", "action", "source", "temporary"),
    [
        ("root", "mda", "action", False),
        ("root", "mda", "forward", False),
        ("_sps_queue", "mda", "forward", False),
        ("nobody", "box", "alias", True),  # an action without aliases
        ("nobody", "relay", "alias", True),
        ("nobody", "relay", "forward", True),
    ],
)
def test_names_that_get_no_command(
    tmp_path: Path, user: str, action: str, source: AgentSource, temporary: bool
) -> None:
    """Neither root nor a user of ours runs a command, and no action one that it cannot have."""
    assert Asked(tmp_path).refusal(user, action, source).temporary is temporary


@pytest.mark.skipif(os.getuid() != 0, reason="only root has other users to choose from")
def test_what_an_alias_names_has_the_alias_user(tmp_path: Path) -> None:
    """Whoever delivery asks for, root included."""
    agents = Asked(tmp_path).agents
    for user in ("root", "nobody", "no-such-user-here"):
        request = m.AgentStart(1, user, "mda", "alias")
        try:
            assert agents._deliverer(request, agents.actions["mda"], None).pw_name == ALIAS_USER
        except AgentRefusal as refusal:
            assert refusal.temporary and "smtpctl_ps setup" in str(refusal)  # where it was not made yet


def test_the_command_is_the_configurations(tmp_path: Path) -> None:
    """An agent hears the action's command from the parent; one of targets hears none, a Maildir's wrapper ours."""
    agents = Asked(tmp_path).agents
    user = pwd.getpwuid(os.getuid())

    def settings(action: ActionSettings, source: AgentSource = "action") -> tuple[m.Common, AgentSettings]:
        common, setup = agents._plan(action, user, [], source)
        assert isinstance(setup, m.AgentSetup)
        return common, setup.settings

    common, mda = settings(agents.actions["mda"])
    assert (common.commands, common.writable, mda.kind, mda.mda_command) == (True, (), "mda", "cat")
    common, targets = settings(agents.actions["mda"], "forward")
    assert (common.commands, targets.kind, targets.source, targets.mda_command) == (True, "targets", "forward", "")
    common, box = settings(agents.actions["box"])
    assert (common.commands, box.kind, box.mda_command) == (False, "maildir", "")
    wrapped = ActionSettings("w", "maildir", maildir_path="~/it's", maildir_junk=True, wrapper="nice %{mda}")
    common, made = settings(wrapped)
    assert common.commands and made.kind == "mda" and made.wrapper == "nice %{mda}"
    assert shlex.split(made.mda_command)[-3:] == ["maildir", "-j", "%{user.directory}/it's"]


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
