"""Format specifiers in paths, `%{user.username[0:2]:lowercase}`: whether they are well formed.

Runs in the parent and in `smtpd_ps -n`; expansion is the agent's. Names and modifiers are those
of smtpd.conf(5), FORMAT SPECIFIERS.
"""

import re

NAMES = (
    "sender", "sender.user", "sender.domain", "rcpt", "rcpt.user", "rcpt.domain",
    "dest", "dest.user", "dest.domain", "user.username", "user.directory", "mbox.from",
)  # fmt: skip
MODIFIERS = ("lowercase", "uppercase", "strip", "raw")
_SPECIFIER = re.compile(r"%\{([^{}]*)\}")
_INSIDE = re.compile(r"(?P<name>[a-z.]+)(?:\[(?:-?\d{1,4}|-?\d{0,4}:-?\d{0,4})\])?(?::(?P<modifiers>[a-z|]+))?")


def specifier_problem(text: str) -> str | None:
    """What is wrong with the specifiers in `text`, None if nothing is."""
    for inside in _SPECIFIER.findall(text):
        match = _INSIDE.fullmatch(inside)
        if match is None or match["name"] not in NAMES:
            return f'"%{{{inside}}}" is not a format specifier'
        for modifier in (match["modifiers"] or "lowercase").split("|"):
            if modifier not in MODIFIERS:
                return f'"{modifier}" is not a modifier of format specifiers ({", ".join(MODIFIERS)})'
    if "%{" in _SPECIFIER.sub("", text):
        return 'a format specifier starts with "%{" and is not closed'
    return None
