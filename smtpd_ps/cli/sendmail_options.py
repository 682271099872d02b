"""The command line of sendmail(8), as values: its own options, and those of others that change nothing.

Runs in sendmail, as whoever calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from smtpd_ps.contract.values import Notify
from smtpd_ps.pure.mail_draft import MAX_NAME, address_safe
from smtpd_ps.pure.xtext import is_xtext

USAGE = """\
usage: sendmail_ps [-itv] [-b mode] [-F name] [-f address] [-N notify] [-R ret] [-V envid]
                   [--state-dir dir] [recipient ...]"""
MAX_ENVID = 100  # RFC 3461 4.4

# As getopt(3) has them: a colon takes an argument, two colons one that must be attached.
_LETTERS = "A:B:b:E::e:F:f:iJ::L:mN:o:p:qr:R:StvV:x"
IGNORED = "ABEeiJLmopx"
_NOTIFY = {"NEVER": Notify.NEVER, "SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


class Mode(Enum):
    """What is to be done."""

    SEND = "m"
    ALIASES = "i"
    QUEUE = "p"
    SMTP = "s"
    RUN_QUEUE = "q"


class OptionsError(ValueError):
    """The words make no command; one line."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of sendmail(8). None: not given."""

    mode: Mode = Mode.SEND
    name: str | None = None
    sender: str | None = None  # "" is the null sender
    read_recipients: bool = False
    verbose: bool = False
    no_login: bool = False
    notify: int = 0
    ret: str = ""
    envid: str = ""
    state_dir: str | None = None
    recipients: tuple[str, ...] = ()


def parse_options(words: Sequence[str]) -> Options:
    """Parse the words after the program's name. Raises OptionsError."""
    state_dir, given, recipients = _split(words)
    values = dict(given)  # of an option given twice the last one counts
    modes = [value for letter, value in given if letter == "b"]
    known = [mode.value for mode in Mode if mode is not Mode.RUN_QUEUE]
    for value in modes:
        if value not in known:
            raise OptionsError(f"-b{value}: unknown mode; known: {' '.join(f'-b{mode}' for mode in known)}")
    sender = next((value for letter, value in reversed(given) if letter in "fr"), None)
    return Options(
        mode=Mode.RUN_QUEUE if "q" in values else Mode(modes[-1]) if modes else Mode.SEND,
        name=_name(values["F"]) if "F" in values else None,
        sender=None if sender is None else _sender(sender),
        read_recipients="t" in values,
        verbose="v" in values,
        no_login="S" in values,
        notify=_notify(values["N"]) if "N" in values else 0,
        ret=_ret(values["R"]) if "R" in values else "",
        envid=_envid(values["V"]) if "V" in values else "",
        state_dir=state_dir,
        recipients=tuple(recipients),
    )


def _split(words: Sequence[str]) -> tuple[str | None, list[tuple[str, str]], list[str]]:
    """As getopt(3) would: options end at the first word that is none, or behind `--`."""
    rest = list(words)
    state_dir: str | None = None
    given: list[tuple[str, str]] = []
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            if name != "--state-dir" or not (equals or rest):
                raise OptionsError(f"unknown option {word}")
            state_dir = value if equals else rest.pop(0)
            continue
        cluster = word[1:]
        while cluster:
            letter, cluster = cluster[0], cluster[1:]
            at = _LETTERS.find(letter)
            if letter == ":" or at < 0:
                raise OptionsError(f"unknown option -{letter}")
            if _LETTERS[at + 1 : at + 3] == "::":
                given.append((letter, cluster))
                break
            if _LETTERS[at + 1 : at + 2] == ":":
                if not cluster and not rest:
                    raise OptionsError(f"-{letter} wants an argument")
                given.append((letter, cluster or rest.pop(0)))
                break
            given.append((letter, ""))
    return state_dir, given, rest


def _name(text: str) -> str:
    if not text.isprintable():
        raise OptionsError("-F: the name has a line break or another control character")
    if len(text) > MAX_NAME:
        raise OptionsError(f"-F: the name has more than {MAX_NAME} characters")
    return text


def _sender(text: str) -> str:
    """The address, without the brackets around it. "" and <> are the null sender."""
    if text.startswith("<") != text.endswith(">"):
        raise OptionsError(f"-f: unbalanced brackets: {text}")
    address = text[1:-1] if text.startswith("<") else text
    if address and not address_safe(address):
        raise OptionsError(f"-f: not an address: {text}")
    return address


def _notify(text: str) -> int:
    notify = 0
    for word in text.split(","):
        flag = _NOTIFY.get(word.strip().upper())
        if flag is None:
            raise OptionsError(f"-N: unknown word {word}; known: never success failure delay")
        notify |= flag
    if notify & Notify.NEVER and notify != Notify.NEVER:
        raise OptionsError("-N: never stands alone")
    return int(notify)


def _ret(text: str) -> str:
    ret = text.upper()
    if ret not in ("FULL", "HDRS"):
        raise OptionsError(f"-R: expected full or hdrs, found {text}")
    return ret


def _envid(text: str) -> str:
    if not text or not is_xtext(text) or len(text) > MAX_ENVID:
        raise OptionsError(f"-V: expected xtext (RFC 3461 4) of at most {MAX_ENVID} characters")
    return text
