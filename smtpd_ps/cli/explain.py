"""`smtpctl_ps explain`: what the daemon would do with a mail, step by step.

Runs in the operator's command; prints what lookup answers through control.
"""

import getopt
import sys
from collections.abc import Sequence

import msgspec

from smtpd_ps.cli.ask import parts
from smtpd_ps.cli.words import WordError
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import StepKind

_OPTIONS = ("from=", "helo=", "user=", "tls", "tag=", "sender=", "rcpt=")
_NEEDED = ("--from", "--sender", "--rcpt")
_WORDS: dict[StepKind, str] = {
    "client": "client {subject} {text}",
    "address": "{subject}",
    "user": "{subject}",
    "target": "{subject}",
    "rule": "  rule: {text}",
    "entry": "  entry {subject} {text}",
    "no-entry": "  no entry for {subject} {text}",
    "duplicate": "  {subject} {text}",
    "passwd": "  {subject} {text}",
    "deliver": "=> {subject} by {text}",
    "host": "  to {subject}, {text}",
    "refused": "=> refused: {text}",
    "note": "  ({text})",
    "userbase": "  {subject} {text}",
    "forward": "  {subject}: {text}",
    "include": "  included {subject}: {text}",
}


def request_of(given: Sequence[str]) -> m.Explain:
    """The question that these options make. Raises WordError."""
    try:
        pairs, rest = getopt.gnu_getopt(list(given), "", list(_OPTIONS))
    except getopt.GetoptError as error:
        raise WordError(f"explain: {error}") from None
    values = dict(pairs)
    missing = [name for name in _NEEDED if name not in values]
    if rest or missing:
        raise WordError(f"explain: unexpected {rest[0]!r}" if rest else f"explain needs {', '.join(missing)}")
    request = m.Explain(
        client=0,
        address=values["--from"],
        helo=values.get("--helo", "localhost"),
        user=values.get("--user", ""),
        tls="--tls" in values,
        tag=values.get("--tag", ""),
        sender=_bare(values["--sender"]),
        recipient=_bare(values["--rcpt"]),
    )
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=m.Explain)
    except (msgspec.ValidationError, UnicodeError):
        raise WordError("explain: a value is too long or not text") from None
    return request


def _bare(address: str) -> str:
    return address[1:-1] if address.startswith("<") and address.endswith(">") else address


def step_line(step: m.ExplainStep) -> str:
    """One line for people; deeper expansions stand further right."""
    text = f"{'  ' * step.depth}{_WORDS[step.kind].format(subject=step.subject, text=step.text)}"
    if step.kind in ("address", "user", "target") and step.text:
        text = f"{text} ({step.text})"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def explain(state_dir: str | None, given: Sequence[str], json: bool) -> int:
    """Ask, and print each step: a line, or with `json` an object."""
    for step in parts(state_dir, request_of(given), m.ExplainStep):
        if json:
            record = {name: getattr(step, name) for name in ("depth", "kind", "subject", "text")}
            sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        else:
            print(step_line(step))
    return 0
