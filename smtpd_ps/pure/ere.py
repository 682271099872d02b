"""Does a text contain a match of any of these POSIX extended regular expressions?

Runs in lookup, on what strangers say (pure/ere_syntax reads the patterns). The time is bounded
by the length of the text times the size of the patterns, whatever they are: all places where the
patterns may stand are followed at once (Thompson 1968), nothing is tried and taken back. Sets of
places that were met before are remembered with the step that each character takes from them, so
that a text usually costs a dict lookup for each character.
"""

from collections.abc import Iterable
from string import ascii_lowercase, digits
from typing import assert_never

from smtpd_ps.pure.ere_syntax import Choice, Edge, EreError, Node, OneOf, Repeat, Sequence, parse

MAX_PLACES = 20_000  # of all patterns together, repetitions written out
MAX_REMEMBERED = 100_000  # places in the sets that are remembered

_WORD = frozenset(ascii_lowercase + digits + "_")
_OVER = ""  # stands for the end of the text, as a character


class _Set:
    """Places that may have been reached, and the steps from there; None is a match."""

    __slots__ = ("after_word", "at_start", "places", "steps")

    def __init__(self, places: frozenset[int], at_start: bool, after_word: bool) -> None:
        self.places, self.at_start, self.after_word = places, at_start, after_word
        self.steps: dict[str, _Set | None] = {}


class Ere:
    """Patterns, compiled. Raises EreError at construction for a bad one, or for too many."""

    def __init__(self, patterns: Iterable[str]) -> None:
        # A place is reached by going on from it: over a character, through an edge, or for free.
        self._on: list[tuple[OneOf | Edge | None, tuple[int, ...]]] = [(None, ())]  # place 0: the match
        self._work = 0
        starts = [self._write(parse(pattern), 0) for pattern in patterns]
        self._sets: dict[tuple[frozenset[int], bool, bool], _Set] = {}
        self._remembered = 0
        self._starts = frozenset(starts)
        self._first = self._set(self._starts, True, False)

    def search(self, text: str) -> bool:
        """Whether a pattern matches somewhere in `text`, which is in lower case."""
        here = self._first
        for character in (*text, _OVER):
            try:
                there = here.steps[character]
            except KeyError:
                there = self._step(here, character)
            if there is None:
                return True
            here = there
        return False

    # Patterns become places.

    def _place(self, over: OneOf | Edge | None, *to: int) -> int:
        self._count()
        self._on.append((over, to))
        return len(self._on) - 1

    def _count(self) -> None:
        self._work += 1  # of empty groups too, which make no place
        if self._work > 2 * MAX_PLACES:
            raise EreError("with its repetitions written out it is too large")

    def _write(self, node: Node, then: int) -> int:
        """The place where `node` starts, with `then` behind it."""
        self._count()
        match node:
            case OneOf() | Edge():
                return self._place(node, then)
            case Sequence(nodes):
                for each in reversed(nodes):
                    then = self._write(each, then)
                return then
            case Choice(nodes):
                return self._place(None, *[self._write(each, then) for each in nodes])
            case Repeat(each, least, most):
                start = then
                if most is None:
                    start = self._place(None)
                    self._on[start] = (None, (self._write(each, start), then))
                else:
                    for _ in range(most - least):
                        start = self._place(None, self._write(each, start), then)
                for _ in range(least):
                    start = self._write(each, start)
                return start
            case _:
                assert_never(node)

    # A text is followed through the places.

    def _set(self, places: frozenset[int], at_start: bool, after_word: bool) -> _Set:
        key = (places, at_start, after_word)
        known = self._sets.get(key)
        if known is None:
            self._remembered += len(places)
            known = self._sets[key] = _Set(places, at_start, after_word)
        return known

    def _step(self, here: _Set, character: str) -> _Set | None:
        """Where `character` leads; remembered."""
        if self._remembered > MAX_REMEMBERED:
            self._sets.clear()
            self._remembered = 0
            self._first = self._set(self._starts, True, False)
        self._remembered += 1
        before_word = character in _WORD
        to: set[int] = set()
        seen = set(here.places)
        open_places = list(here.places)
        while open_places:
            place = open_places.pop()
            if place == 0:
                here.steps[character] = None
                return None
            over, following = self._on[place]
            if isinstance(over, OneOf):
                if character != _OVER and character in over:
                    to.update(following)
            elif over is None or _holds(over, here, before_word, character == _OVER):
                for each in following:
                    if each not in seen:
                        seen.add(each)
                        open_places.append(each)
        there = self._set(self._starts | to, False, before_word)
        here.steps[character] = there
        return there


def _holds(edge: Edge, here: _Set, before_word: bool, over: bool) -> bool:
    match edge:
        case Edge.START:
            return here.at_start
        case Edge.END:
            return over
        case Edge.WORD_START:
            return before_word and not here.after_word
        case Edge.WORD_END:
            return here.after_word and not before_word
        case _:
            assert_never(edge)
