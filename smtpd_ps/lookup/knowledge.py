"""What expansion must know from outside: users, .forward files, included files.

Runs in lookup, which can look at none of them itself: it asks the parent, and parses what the files
say, which for a .forward is what any user wrote. Answers are kept for a short while only, so that a
new user or a new .forward is soon heard of, and a mailing list of many mails asks once.
"""

import os
from collections.abc import Callable, Iterable

from smtpd_ps.contract import messages as m
from smtpd_ps.lookup.asking import Asking
from smtpd_ps.lookup.files import read_whole
from smtpd_ps.pure.expand_files import FileTargets, parse_forward, parse_include
from smtpd_ps.pure.expand_questions import (
    Answer,
    Forward,
    ForwardQuestion,
    Included,
    IncludeQuestion,
    Question,
    UserQuestion,
    UserState,
)
from smtpd_ps.pure.expand_targets import TargetError
from smtpd_ps.runtime.loop import Loop

FOUND_SECS = 60.0
ABSENT_SECS = 10.0
FILE_SECS = 2.0  # what a .forward or an included file says, and that there is no .forward
USERS = 20_000
FORWARDS = 4096
INCLUDES = 256
MAX_NAME = 255  # contract.values.Name
MAX_PATH = 1024  # contract.values.Path

Answers = dict[Question, Answer]

_STATES = {True: UserState.FOUND, False: UserState.ABSENT}


class Knowledge:
    """Answers of the parent; `warn` hears of files that cannot be used as they are."""

    def __init__(self, loop: Loop, send: Callable[[m.Message], None], warn: Callable[[str], None]) -> None:
        self._loop, self._warn = loop, warn
        self._users: Asking[UserQuestion, UserState] = Asking(
            loop, lambda number, asked: send(m.UserQuery(number, asked.user)), UserState.UNSURE, _user_secs, USERS
        )
        self._forwards: Asking[ForwardQuestion, Forward] = Asking(
            loop,
            lambda number, asked: send(m.ForwardOpen(number, asked.action, asked.user, asked.account)),
            Forward("unsure"),
            _forward_secs,
            FORWARDS,
        )
        self._includes: Asking[IncludeQuestion, Included] = Asking(
            loop,
            lambda number, asked: send(m.IncludeOpen(number, asked.path)),
            Included(None, "the parent does not answer"),
            lambda _answer: FILE_SECS,
            INCLUDES,
        )

    def known(self, question: Question) -> Answer | None:
        """What is known now."""
        match question:
            case UserQuestion():
                return self._users.known(question)
            case ForwardQuestion():
                return self._forwards.known(question)
            case IncludeQuestion():
                return self._includes.known(question)

    def forget_files(self) -> None:
        """Read included files anew: the operator has changed a table."""
        self._includes.forget()

    def ask(self, questions: Iterable[Question], done: Callable[[Answers], None]) -> None:
        """Call `done` once, later, with the answers to all of them."""
        missing = set(questions)
        answers: Answers = {}

        def one(question: Question, answer: Answer) -> None:
            answers[question] = answer
            if len(answers) == len(missing):
                done(answers)

        for question in missing:
            self._ask_one(question, one)

    def _ask_one(self, question: Question, done: Callable[[Question, Answer], None]) -> None:
        match question:
            case UserQuestion(user):
                if len(user) > MAX_NAME:
                    self._loop.call_soon(lambda: done(question, UserState.ABSENT))
                else:
                    self._users.ask(question, done)
            case ForwardQuestion(_, user):
                if len(user) > MAX_NAME:
                    self._loop.call_soon(lambda: done(question, Forward("absent")))
                else:
                    self._forwards.ask(question, done)
            case IncludeQuestion(path):
                if len(path) > MAX_PATH:
                    self._loop.call_soon(lambda: done(question, Included(None, f"the path is too long: {path}")))
                else:
                    self._includes.ask(question, done)

    # The parent's answers.

    def user_info(self, info: m.UserInfo) -> None:
        """Whether there is a user of the system."""
        self._users.answered(info.query, UserState.UNSURE if info.temporary else _STATES[info.found])

    def forward_file(self, message: m.ForwardFile, fd: int) -> None:
        """The bytes of a .forward, in a pipe whose other end is closed."""
        asked = self._forwards.asked(message.query)
        name = f".forward of {asked.user}" if asked is not None else ".forward"
        try:
            os.set_blocking(fd, False)  # it is all in there; nothing may make lookup wait
            found = parse_forward(read_whole(fd))
        except OSError as error:
            answer = Forward("temporary", why=f"{name}: {os.strerror(error.errno or 0)}")
        except TargetError as error:
            answer = Forward("temporary", why=f"{name}: {error}")
        else:
            self._note(name, found)
            answer = Forward("found" if found.targets else "none", found.targets, message.superuser)
        finally:
            os.close(fd)
        self._forwards.answered(message.query, answer)

    def forward_none(self, message: m.ForwardNone) -> None:
        """There is no .forward to use, or no such user."""
        self._forwards.answered(message.query, Forward(message.verdict, why=message.text))

    def include_file(self, message: m.IncludeFile, fd: int) -> None:
        """A file of the operator, open."""
        asked = self._includes.asked(message.query)
        name = asked.path if asked is not None else "included file"
        try:
            found = parse_include(read_whole(fd))
        except OSError as error:
            answer = Included(None, f"{name}: {os.strerror(error.errno or 0)}")
        except TargetError as error:
            answer = Included(None, f"{name}: {error}")
        else:
            self._note(name, found)
            answer = Included(found.targets)
        finally:
            os.close(fd)
        self._includes.answered(message.query, answer)

    def include_none(self, message: m.IncludeNone) -> None:
        """It cannot be opened."""
        self._includes.answered(message.query, Included(None, message.text))

    def _note(self, what: str, found: FileTargets) -> None:
        for note in found.notes[:5]:
            self._warn(f"{what}: left out {note}")


def _user_secs(state: UserState) -> float:
    match state:
        case UserState.FOUND:
            return FOUND_SECS
        case UserState.ABSENT:
            return ABSENT_SECS
        case UserState.UNSURE:
            return 0.0


def _forward_secs(forward: Forward) -> float:
    match forward.state:
        case "none" | "found" | "refused" | "temporary":
            return FILE_SECS
        case "absent":
            return ABSENT_SECS
        case "unsure":
            return 0.0
