"""Asking DNS without doing it: a check is a generator that yields questions and is sent answers.

Pure; whoever runs the generator asks. `answered` is what it is sent.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, TypeVar

Kind = Literal["A", "AAAA", "MX", "PTR", "TXT"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """A name without a final dot, and a type."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Answer:
    """The records as text: addresses, names (of MX in order of preference), TXT with its strings joined.

    `failed`: nobody could answer; without records and not failed the name or the type is not there.
    """

    records: tuple[str, ...] = ()
    failed: bool = False


Asking = Generator[Question, Answer, T]


def answered(asking: Asking[T], ask: Callable[[Question], Answer]) -> T:
    """The result of a check with a function that answers at once."""
    try:
        question = next(asking)
        while True:
            question = asking.send(ask(question))
    except StopIteration as end:
        result: T = end.value
        return result
