"""The words of a smtpctl_ps command: matched against a grammar, each may be shortened.

Pure; runs in the operator's command and parses its arguments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """`words` in the order typed; `run` gets the arguments that follow them.

    `arguments` are their names for the usage line; the last may be optional ("[id]") or repeat ("...").
    """

    words: tuple[str, ...]
    run: Callable[[Sequence[str]], int]
    arguments: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """The command as the usage shows it."""
        return " ".join((*self.words, *self.arguments))

    def takes(self, count: int) -> bool:
        """Whether `count` arguments are right."""
        needed = sum(1 for name in self.arguments if not name.startswith(("[", "...")))
        return needed <= count and (count <= len(self.arguments) or "..." in self.arguments[-1:])


class WordError(Exception):
    """No command, or more than one, is meant; the text lists candidates."""


def find(commands: Sequence[Command], words: Sequence[str]) -> tuple[Command, list[str]]:
    """The one command that `words` mean and its arguments. Raises WordError."""
    candidates = list(commands)
    for at, word in enumerate(words):
        going = [c for c in candidates if len(c.words) > at and c.words[at].startswith(word)]
        exact = [c for c in going if c.words[at] == word]
        if not going:
            break
        candidates = exact or going
    matched = [c for c in candidates if _matches(c, words) and c.takes(len(words) - len(c.words))]
    if len(matched) > 1 and len({c.words for c in matched}) > 1:
        raise WordError("ambiguous; possible: " + ", ".join(c.usage for c in matched))
    if matched:
        return matched[0], list(words[len(matched[0].words) :])
    if not words or candidates == list(commands):
        raise WordError("unknown command")
    raise WordError("possible: " + ", ".join(c.usage for c in candidates))


def _matches(command: Command, words: Sequence[str]) -> bool:
    if len(words) < len(command.words):
        return False
    return all(full.startswith(word) for full, word in zip(command.words, words, strict=False))
