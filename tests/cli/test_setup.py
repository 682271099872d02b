"""`smtpctl_ps setup` and the daemon's state: one table, made once, checked, never guessed at."""

import grp
import io
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest

from smtpd_ps.cli import accounts, setup
from smtpd_ps.cli.accounts import SetupError, group_command, plans, user_command
from smtpd_ps.cli.directories import differences, make, wanted
from smtpd_ps.contract.installation import ACCOUNTS, paths

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make users and give directories away")
KEYS = ACCOUNTS[0]


class FakeUsers:
    """A passwd and group file in memory, and the commands that would change them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.users: dict[str, pwd.struct_passwd] = {}
        self.groups: dict[str, grp.struct_group] = {}
        self.ran: list[tuple[str, ...]] = []
        monkeypatch.setattr(accounts, "_user", self.users.get)
        monkeypatch.setattr(accounts, "_group", self.groups.get)
        monkeypatch.setattr(pwd, "getpwall", lambda: list(self.users.values()))
        monkeypatch.setattr(grp, "getgrall", lambda: list(self.groups.values()))

    def run(self, argv: Sequence[str]) -> None:
        self.ran.append(tuple(argv))
        name = argv[-1]
        if argv[0] == "groupadd":
            self.add_group(name)
        else:
            self.add_user(name)

    def add_group(self, name: str, members: Sequence[str] = ()) -> None:
        self.groups[name] = grp.struct_group((name, "x", 500 + len(self.groups), list(members)))

    def add_user(self, name: str, **changes: object) -> None:
        gid = self.groups[name].gr_gid if name in self.groups else 1
        fields = {"uid": 500 + len(self.users), "gid": gid, "shell": "/usr/sbin/nologin"} | changes
        self.users[name] = pwd.struct_passwd(
            (name, "x", fields["uid"], fields["gid"], "", "/nonexistent", fields["shell"])
        )


@pytest.fixture
def users(monkeypatch: pytest.MonkeyPatch) -> FakeUsers:
    return FakeUsers(monkeypatch)


def made(users: FakeUsers) -> None:
    for account in ACCOUNTS:
        users.add_group(account.name)
        users.add_user(account.name)


def test_accounts_from_nothing(users: FakeUsers) -> None:
    """Every group is made before its user, as argument vectors; afterwards nothing is left to do."""
    for plan in plans("linux"):
        for command in plan.commands:
            users.run(command)
    assert [argv[0] for argv in users.ran] == ["groupadd", "useradd"] * len(ACCOUNTS)
    assert [argv[-1] for argv in users.ran[::2]] == [account.name for account in ACCOUNTS]
    assert plans("linux") == []
    assert setup.missing_users() == []


def test_missing_users(users: FakeUsers) -> None:
    """The daemon can say which users are missing."""
    made(users)
    del users.users["_sps_queue"]
    assert setup.missing_users() == ["_sps_queue"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"uid": 0}, "has uid 0"),
        ({"uid": 501}, "shares its uid: _sps_control, _sps_keys"),
        ({"gid": 7}, "primary group is 7, 500 declared"),
        ({"shell": "/bin/sh"}, "shell is '/bin/sh'"),
    ],
)
def test_account_faults(users: FakeUsers, changes: dict[str, object], text: str) -> None:
    """A user who is there but wrong is named with what is wrong, and never changed by itself."""
    made(users)
    users.add_user("_sps_keys", **changes)
    found = [plan for plan in plans("linux") if "_sps_keys" in plan.text and plan.text.startswith("user _sps_keys")]
    assert [plan.commands for plan in found] == [()]
    assert text in found[0].text


def test_memberships(users: FakeUsers) -> None:
    """Membership in any other group is a difference."""
    made(users)
    users.add_group("wheel", ["_sps_smtp"])
    assert [plan.text for plan in plans("linux")] == ["user _sps_smtp: is a member of wheel"]


def test_commands_of_each_system() -> None:
    """No password, no shell, no home: useradd on Linux and OpenBSD, pw on FreeBSD."""
    assert group_command(KEYS, "linux") == ("groupadd", "--system", "_sps_keys")
    assert group_command(KEYS, "freebsd14") == ("pw", "groupadd", "-n", "_sps_keys")
    assert group_command(KEYS, "openbsd7") == ("groupadd", "_sps_keys")
    assert "--no-create-home" in user_command(KEYS, "linux")
    assert user_command(KEYS, "freebsd14")[-2:] == ("-h", "-")
    assert user_command(KEYS, "openbsd7")[-1] == "_sps_keys"
    for system in ("linux", "freebsd14", "openbsd7"):
        assert any("nologin" in word for word in user_command(KEYS, system))


def test_failing_command() -> None:
    """What a command said becomes one line; a command that is not there says what to do."""
    with pytest.raises(SetupError, match=r"nowhere"):
        accounts.run_command(("ls", "/nowhere/at/all"))
    with pytest.raises(SetupError, match="not found; make the user by hand"):
        accounts.run_command(("no-such-useradd", "x"))


def test_check_changes_nothing(users: FakeUsers, tmp_path: Path) -> None:
    """--check says every difference, ends 1, and makes nothing."""
    out = io.StringIO()
    assert setup.run_setup(str(tmp_path / "state"), True, out, users.run) == 1
    assert users.ran == [] and not (tmp_path / "state").exists()
    assert "user _sps_keys: missing" in out.getvalue() and "differences" in out.getvalue()


@needs_root
def test_setup_makes_everything_once(tmp_path: Path) -> None:
    """Users (really), directories, owners and modes; the second run has nothing to do, and --check ends 0."""
    base = tmp_path / "deep" / "state"
    out = io.StringIO()
    assert setup.run_setup(str(base), False, out) == 0, out.getvalue()
    queue = os.stat(base / "spool" / "queue")
    assert (queue.st_uid, queue.st_mode & 0o7777) == (pwd.getpwnam("_sps_queue").pw_uid, 0o700)
    for where, mode in (("", 0o711), ("spool", 0o711), ("empty", 0o755), ("run", 0o755)):
        status = os.stat(base / where)
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, mode)
    again = io.StringIO()
    assert setup.run_setup(str(base), False, again) == 0
    assert again.getvalue() == ""
    assert setup.run_setup(str(base), True, again) == 0


@needs_root
@pytest.mark.parametrize("where", ["spool", "spool/queue", "empty", "run"])
def test_every_observable_line_of_a_directory(tmp_path: Path, where: str) -> None:
    """Owner, mode, kind and being there: each broken in turn, seen by --check, put right by setup."""
    base = tmp_path / "state"
    setup.run_setup(str(base), False, io.StringIO())
    path = base / where

    def differs() -> list[str]:
        return [text for text in setup.state_differences(str(base)) if text.startswith(f"{path}: ")]

    assert differs() == []
    os.chown(path, 12_345, os.stat(path).st_gid)
    assert "owner is 12345" in differs()[0]
    assert setup.run_setup(str(base), False, io.StringIO()) == 0 and differs() == []
    path.chmod(0o777)
    assert "mode is 0777" in differs()[0]
    assert setup.run_setup(str(base), False, io.StringIO()) == 0 and differs() == []
    moved = path.with_name("moved")
    path.rename(moved)
    assert differs() == [f"{path}: missing"]
    path.symlink_to(moved)
    assert differs() == [f"{path}: is a symbolic link"]
    out = io.StringIO()
    assert setup.run_setup(str(base), False, out) == 1
    path.unlink()
    path.write_text("")
    assert differs() == [f"{path}: is not a directory"]


@needs_root
def test_something_in_empty(tmp_path: Path) -> None:
    """The root directory of the others is empty; what lies there is a difference that setup does not remove."""
    base = tmp_path / "state"
    setup.run_setup(str(base), False, io.StringIO())
    (base / "empty" / "passwd").write_text("")
    assert setup.state_differences(str(base)) == [f"{base}/empty: is not empty"]
    assert setup.run_setup(str(base), False, io.StringIO()) == 1
    assert (base / "empty" / "passwd").exists()
    with pytest.raises(OSError, match="is not empty"):
        setup.ensure_state(str(base), privileged=True)


def test_setup_needs_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, users: FakeUsers) -> None:
    """Without root setup says so and does nothing."""
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    out = io.StringIO()
    assert setup.run_setup(str(tmp_path), False, out, users.run) == 1
    assert "must be run as root" in out.getvalue() and users.ran == []


def test_unprivileged_state(tmp_path: Path) -> None:
    """Without privileges the same tree is made, owned by whoever starts the daemon, and is accepted again."""
    base = str(tmp_path / "state")
    setup.ensure_state(base, privileged=False)
    setup.ensure_state(base, privileged=False)
    assert [differences(one) for one in wanted(base, (os.getuid(), os.getgid()))] == [[]] * 6
    places = paths(base)
    assert os.stat(places.queue).st_uid == os.getuid()
    assert Path(places.run).is_dir()


@pytest.mark.parametrize("where", ["spool", "run", "empty"])
def test_state_refuses_links(tmp_path: Path, where: str) -> None:
    """A symbolic link in place of a directory stops the daemon's start; nothing is made through it."""
    base = tmp_path / "state"
    base.mkdir()
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    (base / where).symlink_to(target)
    with pytest.raises(OSError, match="is a symbolic link"):
        setup.ensure_state(str(base), privileged=False)
    assert list(target.iterdir()) == []


def test_state_refuses_what_others_may_write(tmp_path: Path) -> None:
    """A directory with another mode is refused, with the command that puts it right."""
    setup.ensure_state(str(tmp_path / "state"), privileged=False)
    (tmp_path / "state" / "spool").chmod(0o777)
    with pytest.raises(OSError, match=r"mode is 0777, 0711 declared \(smtpctl_ps setup"):
        setup.ensure_state(str(tmp_path / "state"), privileged=False)


@needs_root
def test_state_of_another_owner(tmp_path: Path) -> None:
    """A state directory of someone else is refused."""
    base = tmp_path / "state"
    setup.run_setup(str(base), False, io.StringIO())
    os.chown(base, 12_345, 0)
    with pytest.raises(OSError, match="owner is 12345, root declared"):
        setup.ensure_state(str(base), privileged=True)


@needs_root
def test_make_does_not_follow_a_link(tmp_path: Path) -> None:
    """Even when a link appears after the check, the directory behind it keeps its owner."""
    setup.run_setup(str(tmp_path / "state"), False, io.StringIO())
    target = tmp_path / "target"
    target.mkdir()
    queue = next(one for one in wanted(str(tmp_path / "state")) if one.rule.where == "queue")
    os.rmdir(queue.path)
    os.symlink(target, queue.path)
    with pytest.raises(OSError):
        make(queue)
    assert os.stat(target).st_uid == 0
