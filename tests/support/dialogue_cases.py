"""The dialogue scripts of tests/dialogs, as cases; who runs them against what explains their lines.

tests/pure/smtp_dialogue.py plays them to the SMTP server's core, tests/whole/dialogue_stage.py to a daemon.
"""

import re
from dataclasses import dataclass
from pathlib import Path

DIALOGS = Path(__file__).parent.parent / "dialogs"


@dataclass(frozen=True)
class Case:
    """One dialogue."""

    file: str
    title: str
    lines: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        return f"{self.file}: {self.title}"


def plays_under_tls(case: Case) -> bool:
    """Whether what a case says holds under TLS as well: it is not about TLS or passwords, nor about how a
    connection begins.
    """
    words = "\n".join(line for _number, line in case.lines)
    apart = r"^tls|tls=|STARTTLS|auth=|^received |^hold (name|peer)|filter|hostnames|^log 0000|^wait|AUTH"
    return not re.search(apart, words, re.MULTILINE) and words.startswith(("c <", "set ", "connect "))


def load_cases() -> list[Case]:
    """Every case of every file."""
    cases = []
    for path in sorted(DIALOGS.glob("*.txt")):
        title, lines = "", []
        for number, line in enumerate([*path.read_text().splitlines(), "=== "], 1):
            if line.startswith("=== "):
                if title:
                    cases.append(Case(path.stem, title, tuple(lines)))
                title, lines = line[4:], []
            elif line.strip() and not line.startswith("#"):
                lines.append((number, line))
    return cases


_ESCAPES = {"r": "\r", "n": "\n", "0": "\0", "t": "\t", "\\": "\\"}


def unescape(text: str) -> bytes:
    """Bytes of a script: escapes, and `(text)*N`."""
    text = re.sub(r"\((.*?)\)\*([0-9]+)", lambda found: found[1] * int(found[2]), text)
    out = re.sub(
        r"\\(x[0-9a-f]{2}|[rn0t\\])", lambda f: chr(int(f[1][1:], 16)) if f[1][0] == "x" else _ESCAPES[f[1]], text
    )
    return out.encode("latin-1")
