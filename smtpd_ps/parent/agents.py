"""Agents: one process a user and action, started as that user, for delivery to talk to.

Runs in the parent, as root. Takes a user's and an action's *name* from delivery; what they mean
comes from the configuration, and from passwd or a userbase. Root and the daemon's own users never get mail.
"""

import grp
import os
import pwd
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import ALIAS_USER
from smtpd_ps.contract.settings import ActionSettings, AgentSettings
from smtpd_ps.contract.values import Account, AgentSource, Phase, Process
from smtpd_ps.parent.accounts import UID_FLOOR, Userbases
from smtpd_ps.parent.system import passwd_entry
from smtpd_ps.pure.command_line import quoted, store_command
from smtpd_ps.pure.format_specifier import FormatError, Specifier, parse_format
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer
from smtpd_ps.runtime.spawn import spawn

READY_TIMEOUT_SECS = 30.0
MAIL_SPOOL = "/var/mail"
_STORES = ("maildir", "mbox", "mda")


class AgentRefusal(Exception):
    """Why there is no agent. `temporary`: trying later may help."""

    def __init__(self, text: str, temporary: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary


@dataclass(slots=True)
class _Agent:
    pid: int
    user: str
    action: str
    commands: bool  # it runs some
    channel: Channel | None = None
    patience: Timer | None = None
    ready: bool = False


@dataclass(slots=True)
class Agents:
    """The agents now running. `answer` sends to delivery."""

    loop: Loop
    log: Log
    actions: dict[str, ActionSettings]
    hostname: str
    privileged: bool
    foreground: bool
    answer: Callable[..., None]
    forbidden_users: frozenset[str] = frozenset()
    mail_spool: str = MAIL_SPOOL
    userbases: Userbases | None = None
    sub_address_delimiter: str = "+"
    running: dict[int, _Agent] = field(default_factory=dict)  # by pid

    def start(self, request: m.AgentStart) -> None:
        """Answer with AgentReady once the agent is confined, or with AgentRefused."""
        action = self.actions.get(request.action)
        system = action is None or not action.userbase_table or action.user or request.source == "alias"
        if system or self.userbases is None:
            self._begin(request)
            return

        def told(account: Account | None, why: str) -> None:
            if account is not None:
                self._begin(request, account)
            else:
                self.answer(m.AgentRefused(request.request, bool(why), why or "unknown user"))

        self.userbases.ask(request.action, request.user, told)

    def _begin(self, request: m.AgentStart, account: Account | None = None) -> None:
        """`account`: of a user of a userbase."""
        try:
            self._start(request, account)
        except AgentRefusal as refusal:
            self.answer(m.AgentRefused(request.request, refusal.temporary, str(refusal)))
        except OSError as error:
            self.log.error(f"cannot start an agent for {request.user}: {error}")
            self.answer(m.AgentRefused(request.request, True, "local delivery is not possible now"))

    def _start(self, request: m.AgentStart, account: Account | None) -> None:
        action = self._action(request)
        user = self._deliverer(request, action, account)
        groups = os.getgrouplist(user.pw_name, user.pw_gid) if account is None else [user.pw_gid]
        common, settings = self._plan(action, user, groups, request.source)
        with ExitStack() as undo:  # what was opened, where the next is refused
            mailbox = None
            if common.assets:
                mailbox = self._open_mbox(user)
                undo.callback(os.close, mailbox)
            theirs_a, theirs_d = socket.socketpair()
            undo.callback(theirs_a.close)
            undo.callback(theirs_d.close)
            pid, ours = spawn(Process.AGENT, self.foreground)
            undo.pop_all()
        agent = _Agent(pid, user.pw_name, action.name, common.commands)
        self.running[pid] = agent

        def ready(_message: m.Ready) -> None:
            agent.ready = True
            if agent.patience:
                agent.patience.cancel()
            self.answer(m.AgentReady(request.request), theirs_d.detach())

        def gone(reason: str) -> None:
            if agent.patience:
                agent.patience.cancel()
            if not agent.ready:
                theirs_d.close()
                self.log.error(f"agent for {agent.user} ended before it was ready: {reason or 'see above'}")
                self.answer(m.AgentRefused(request.request, True, "local delivery is not possible now"))

        channel = Channel(self.loop, ours, Process.PARENT, Process.AGENT, {m.Ready: ready}, gone, Phase.SETUP)
        agent.channel = channel
        agent.patience = self.loop.call_later(READY_TIMEOUT_SECS, channel.close)
        channel.send(common)
        channel.send(settings)
        channel.send(m.PeerChannel(Process.DELIVERY), theirs_a.detach())
        if mailbox is not None:
            channel.send(m.AgentMailbox(), mailbox)

    def _action(self, request: m.AgentStart) -> ActionSettings:
        action = self.actions.get(request.action)
        if action is None or action.kind == "relay" or (request.source == "action" and action.kind not in _STORES):
            raise AgentRefusal(f"action {request.action} has no agent", temporary=True)
        if request.source == "alias" and not (action.alias_table or action.virtual_table):
            raise AgentRefusal(f"action {request.action} has no aliases", temporary=True)
        return action

    def _deliverer(self, request: m.AgentStart, action: ActionSettings, account: Account | None) -> pwd.struct_passwd:
        """Who the agent is. What an alias names has a user who owns nothing, whoever was asked for."""
        if request.source != "alias":
            return self._entry(request.user, account) if account else self._user(action.user or request.user)
        try:
            return passwd_entry(ALIAS_USER if self.privileged else pwd.getpwuid(os.getuid()).pw_name)
        except KeyError:
            raise AgentRefusal(f"there is no user {ALIAS_USER}: run smtpctl_ps setup", temporary=True) from None

    def _user(self, name: str) -> pwd.struct_passwd:
        try:
            user = passwd_entry(name)
        except KeyError:
            raise AgentRefusal("unknown user") from None
        if not self.privileged:
            if user.pw_uid != os.getuid():
                raise AgentRefusal("the unprivileged mode delivers only to the user who started it")
            return user
        if user.pw_uid < UID_FLOOR or user.pw_name in self.forbidden_users:
            raise AgentRefusal(f"user {name} does not receive mail")
        return user

    def _entry(self, name: str, account: Account) -> pwd.struct_passwd:
        """As passwd would have it. The floor of uids is parent/accounts'."""
        if not self.privileged and account.uid != os.getuid():
            raise AgentRefusal("the unprivileged mode delivers only to the user who started it")
        if "/" in name or name.startswith(".") or "\0" in name:  # it names a mailbox in the spool
            raise AgentRefusal(f"user {name} does not receive mail")
        return pwd.struct_passwd((name, "", account.uid, account.gid, "", account.home, ""))

    def _plan(
        self, action: ActionSettings, user: pwd.struct_passwd, groups: list[int], source: AgentSource
    ) -> tuple[m.Common, m.AgentSetup]:
        groups = groups if self.privileged else []
        commands = action.runs_commands(source)
        mbox = action.kind == "mbox" and not commands
        writable: tuple[str, ...] = ()
        if action.kind == "maildir" and not commands:
            # Where another user delivers, the names of recipients are not known yet.
            writable = (writable_root(action.maildir_path, user.pw_dir, "" if action.user else user.pw_name),)
        common = m.Common(
            root="", uid=user.pw_uid, gid=user.pw_gid, verbose=self.log.verbose, foreground=self.foreground,
            privileged=self.privileged, user=user.pw_name, groups=tuple(groups), writable=writable,
            peers=1, assets=int(mbox), commands=commands,
        )  # fmt: skip
        return common, m.AgentSetup(
            AgentSettings(
                user=user.pw_name,
                home=user.pw_dir,
                action=action.name,
                kind=_agent_kind(action, source),
                maildir_path=action.maildir_path,
                hostname=self.hostname,
                maildir_junk=action.maildir_junk,
                source=source,
                mda_command=_command(action) if commands and source == "action" else "",
                wrapper=action.wrapper,
                python=sys.executable if action.wrapper else "",
                sub_address_delimiter=self.sub_address_delimiter,
            )
        )

    def _open_mbox(self, user: pwd.struct_passwd) -> int:
        path = f"{self.mail_spool}/{user.pw_name}"
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            if self.privileged:
                os.fchown(fd, user.pw_uid, _mail_gid(user.pw_gid))
                os.fchmod(fd, 0o660 if _mail_gid(user.pw_gid) != user.pw_gid else 0o600)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != user.pw_uid or status.st_nlink != 1:
            os.close(fd)
            raise AgentRefusal(f"{path} is not a plain file of {user.pw_name}", temporary=True)
        return fd

    def reap(self) -> None:
        """Collect agents that have ended (after SIGCHLD)."""
        for pid in list(self.running):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self._forget(pid)

    def _forget(self, pid: int) -> None:
        agent = self.running.pop(pid)
        if agent.channel is not None:
            agent.channel.close()

    def end(self) -> None:
        """End all agents: their channels are closed, stragglers ended by pid."""
        for pid, agent in list(self.running.items()):
            if agent.channel is not None:
                agent.channel.close()
            deadline = self.loop.now() + 2.0
            while not os.waitpid(pid, os.WNOHANG)[0]:
                if self.loop.now() > deadline:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                    break
                self.loop.sleep(0.005)
            del self.running[pid]


def _mail_gid(fallback: int) -> int:
    try:
        return grp.getgrnam("mail").gr_gid
    except KeyError:
        return fallback


def _agent_kind(action: ActionSettings, source: AgentSource) -> Literal["maildir", "mbox", "mda", "targets"]:
    if source != "action":
        return "targets"
    return "mda" if action.kind == "mda" or action.wrapper else "mbox" if action.kind == "mbox" else "maildir"


def _command(action: ActionSettings) -> str:
    """The command of an action; of a Maildir with a wrapper the one that stores the message."""
    if action.kind == "mda":
        return action.mda_command
    path = action.maildir_path or "~/Maildir"
    if path.startswith("~/"):
        path = "%{user.directory}" + path[1:]
    junk = ("-j",) if action.maildir_junk else ()
    return store_command(sys.executable, "maildir", *junk, quoted(path))


def writable_root(maildir_path: str, home: str, user: str) -> str:
    """The folder below which an agent may write: the fixed part of the path, as far as it exists.

    Raises AgentRefusal (temporary) where that would be the whole file system.
    """
    path = maildir_path or "~/Maildir"
    if path.startswith("~/"):
        path = f"%{{user.directory}}/{path[2:]}"
    try:
        parts = parse_format(path).parts
    except FormatError as error:
        raise AgentRefusal(f"maildir path: {error}", temporary=True) from None
    fixed = ""
    for part in parts:
        if isinstance(part, str):
            fixed += part
        elif part == Specifier("user.directory"):
            fixed += home
        elif user and part == Specifier("user.username"):
            fixed += user
        else:
            fixed = fixed.rpartition("/")[0]  # the name that the rest is part of
            break
    while fixed and not os.path.isdir(fixed):
        fixed = fixed.rpartition("/")[0]
    if fixed.strip("/") == "":
        raise AgentRefusal(f"no folder of {path} exists", temporary=True)
    return fixed
