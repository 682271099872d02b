"""An agent that runs commands and writes the files that users name: one job, one command or file.

Runs in agents, as the mail user, or as the alias user for what alias tables name; confined by
policy.RUNNER. The command of an action comes from the parent with the set-up. A target comes with
the job: from an alias it is whatever lookup found, which is why its user owns nothing; from a .forward
it must stand in this user's own file.
"""

import os
import signal
import time
from collections.abc import Mapping

from smtpd_ps.agents.agent import Answers
from smtpd_ps.agents.bodies import BodyError, Item
from smtpd_ps.agents.commands import Command, message_file
from smtpd_ps.agents.file_target import append
from smtpd_ps.agents.forward_line import forward_names
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import AgentSettings
from smtpd_ps.contract.values import Status
from smtpd_ps.pure.command_line import expand_command, parse_command, quoted, store_command
from smtpd_ps.pure.expand_targets import TargetError
from smtpd_ps.pure.format_specifier import Format, FormatError, address_values, check_path, expand, parse_format
from smtpd_ps.pure.mda_environment import mda_environment
from smtpd_ps.pure.mda_result import Verdict, not_started
from smtpd_ps.runtime.channel import Handlers
from smtpd_ps.runtime.loop import Loop

END_SECS = 1.0  # for commands to end by themselves when this process must
_PAUSE_SECS = 0.01
_Job = m.AgentJob | m.AgentJobFile


class Runner:
    """Takes jobs as they come; delivery sees to it that there are not too many at a time."""

    def __init__(self, loop: Loop, settings: AgentSettings) -> None:
        self._loop = loop
        self._settings = settings
        self._wrapper: Format | None = parse_command(settings.wrapper, wrapper=True) if settings.wrapper else None
        self._running: dict[Command, None] = {}
        self.answers: Answers | None = None  # set before the loop runs

    def handlers(self) -> Handlers:
        """For the channel to delivery."""
        return {m.AgentJob: self.take, m.AgentJobFile: self.take}

    def take(self, job: _Job, fd: int = -1) -> None:
        """A job; `fd` is the body of a large one."""
        item = Item(job, fd)
        try:
            verdict = self._begin(item)
        except FormatError as error:
            verdict = Verdict(Status.PERMFAIL, f"5.3.0 {error}")
        except BodyError as error:
            verdict = Verdict(Status.TEMPFAIL, f"4.3.0 {error}")
        except OSError as error:
            verdict = not_started(error)
        finally:
            item.close()
        if verdict is not None:
            self._answer(job.job, verdict)

    def _begin(self, item: Item) -> Verdict | None:
        """Start what the job asks for; the verdict where it is known at once."""
        job, settings = item.job, self._settings
        user = job.user or settings.user
        own = {"user.username": user, "user.directory": settings.home}
        values = own | address_values(job.sender, job.rcpt, job.dest)
        if settings.kind == "targets":
            refusal = self._target_refused(job.target)
            if refusal is not None:
                return refusal
            if job.target.startswith("/"):
                path = check_path(expand(parse_format(job.target), values, settings.sub_address_delimiter))
                if self._wrapper is None:
                    return append(path, item)
                line = store_command(settings.python, "file", quoted(path))
            else:
                line = self._expand(parse_command(job.target[1:]), values)
        else:
            line = self._expand(parse_command(settings.mda_command), values)
        if settings.python and not os.access(settings.python, os.X_OK) and settings.python in line:
            return Verdict(Status.TEMPFAIL, f"4.3.5 {settings.python} cannot be executed by {settings.user}")
        if self._wrapper is not None:
            line = self._expand(self._wrapper, values, line)
        environment = mda_environment(user, settings.home, job.sender, job.rcpt, job.dest, job.extension)
        self._run(item, line, environment)
        return None

    def _expand(self, format_: Format, values: Mapping[str, str], mda: str = "") -> str:
        return expand_command(format_, values, self._settings.sub_address_delimiter, mda)

    def _target_refused(self, target: str) -> Verdict | None:
        if not target.startswith(("|", "/")):
            return Verdict(Status.PERMFAIL, "5.3.0 this is neither a file nor a command")
        if self._settings.source != "forward":
            return None
        try:
            if forward_names(self._settings.home, target):
                return None
            why = "it does not name this file or command (any more)"
        except TargetError as error:
            why = str(error)
        except OSError as error:
            why = os.strerror(error.errno or 0)
        return Verdict(Status.TEMPFAIL, f"4.2.4 ~/.forward: {why}")

    def _run(self, item: Item, line: str, environment: Mapping[str, str]) -> None:
        job, settings = item.job, self._settings
        size_bytes = len(job.body) if isinstance(job, m.AgentJob) else job.size_bytes
        command = Command(self._loop, job.job, self._ended)
        message = message_file(item, size_bytes)
        try:
            command.start(line, environment, settings.home, message, settings.command_limit_secs)
        finally:
            os.close(message)
        self._running[command] = None

    def _ended(self, command: Command, verdict: Verdict) -> None:
        del self._running[command]
        self._answer(command.job, verdict)

    def _answer(self, job: int, verdict: Verdict) -> None:
        assert self.answers is not None
        self.answers.send(m.AgentResult(job, verdict.status, verdict.text[:2048]))

    def reap(self, _signal: int = 0) -> None:
        """Look which commands have ended (after SIGCHLD)."""
        for command in list(self._running):
            command.ended()

    def end(self) -> None:
        """End what is still running: nobody would hear of it, and its message is delivered again."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for command in self._running:
                command.signal(number)
            deadline = time.monotonic() + END_SECS
            while self._running and time.monotonic() < deadline:
                self.reap()
                if self._running:
                    time.sleep(_PAUSE_SECS)
