"""POSIX extended regular expressions: from text to a tree.

Runs in the parent and in `smtpd_ps -n` (to check what smtpd.conf says) and in lookup; the
patterns are the operator's. The grammar is that of re_format(7) on OpenBSD in the C locale,
with word boundaries (`[[:<:]]`, `\\<`) and without collating names. Like all keys of tables a
pattern has no case: it is lowered here, and is compared with what is lower case already.
"""

from dataclasses import dataclass
from enum import Enum
from string import ascii_letters, ascii_lowercase, digits, punctuation

MAX_NESTED = 50
MAX_TIMES = 255  # RE_DUP_MAX
NO_CASE = "(?i)"

_GRAPH = ascii_letters + digits + punctuation
CLASSES = {
    "alnum": ascii_letters + digits,
    "alpha": ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, (*range(32), 127))),
    "digit": digits,
    "graph": _GRAPH,
    "lower": ascii_lowercase,
    "print": _GRAPH + " ",
    "punct": punctuation,
    "space": " \t\n\v\f\r",
    "upper": ascii_letters.upper(),
    "xdigit": "0123456789abcdefABCDEF",
}


class EreError(ValueError):
    """Not a pattern, or one that is too large. The text says what is wrong, and where."""


class Edge(Enum):
    """A place between two characters."""

    START = "^"
    END = "$"
    WORD_START = "<"
    WORD_END = ">"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One character of a set. `.` is everything but nothing."""

    characters: frozenset[str]
    ranges: tuple[tuple[str, str], ...] = ()
    negated: bool = False

    def __contains__(self, character: str) -> bool:
        found = character in self.characters or any(low <= character <= high for low, high in self.ranges)
        return found is not self.negated


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; none of them is the empty string."""

    nodes: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Choice:
    """Any of them."""

    nodes: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """`least` to `most` times; None is any number of times."""

    node: "Node"
    least: int
    most: int | None


Node = OneOf | Edge | Sequence | Choice | Repeat
_ANY = OneOf(frozenset(), negated=True)


def parse(pattern: str) -> Node:
    """The tree of a pattern, with or without `(?i)` before it. Raises EreError."""
    text = pattern.lower()
    both_cases = text.startswith(NO_CASE)
    reader = _Reader(text, len(NO_CASE) if both_cases else 0, both_cases)
    tree = reader.choice(0)
    if reader.next():
        raise reader.error('")" without "("')
    return tree


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, text: str, at: int, both_cases: bool) -> None:
        self._text, self._at, self._both_cases = text, at, both_cases

    def next(self, length: int = 1) -> str:
        """What comes next, not taken; "" at the end."""
        return self._text[self._at : self._at + length]

    def error(self, what: str, at: int | None = None) -> EreError:
        """The error `what` at a place, else at the next character."""
        return EreError(f"{what} at character {(self._at if at is None else at) + 1}")

    def _take(self) -> str:
        character = self.next()
        self._at += 1
        return character

    def choice(self, depth: int) -> Node:
        """Branches with `|` between them, up to `)` or the end."""
        branches = [self._branch(depth)]
        while self.next() == "|":
            self._at += 1
            branches.append(self._branch(depth))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _branch(self, depth: int) -> Node:
        pieces: list[Node] = []
        while self.next() not in ("", "|", ")"):
            pieces.append(self._piece(depth))
        if not pieces:
            raise self.error("an empty pattern or branch")
        return pieces[0] if len(pieces) == 1 else Sequence(tuple(pieces))

    def _piece(self, depth: int) -> Node:
        is_caret = self.next() == "^"
        atom = self._atom(depth)
        if not self._repeats():
            return atom
        if is_caret:
            raise self.error("nothing to repeat")
        start = self._at
        match self._take():
            case "*":
                piece = Repeat(atom, 0, None)
            case "+":
                piece = Repeat(atom, 1, None)
            case "?":
                piece = Repeat(atom, 0, 1)
            case _:
                piece = Repeat(atom, *self._bound(start))
        if self._repeats():
            raise self.error("a repetition of a repetition")
        return piece

    def _repeats(self) -> bool:
        return self.next() in ("*", "+", "?") or (self.next() == "{" and self.next(2)[1:] in tuple(digits))

    def _bound(self, start: int) -> tuple[int, int | None]:
        """What follows the brace: `m}`, `m,}` or `m,n}`."""
        least = self._number(start)
        most: int | None = least
        if self.next() == ",":
            self._at += 1
            most = None if self.next() == "}" else self._number(start)
        if self._take() != "}":
            raise self.error('"{" and a number without "}"', start)
        if most is not None and most < least:
            raise self.error("a bound that ends before it starts", start)
        return least, most

    def _number(self, start: int) -> int:
        written = ""
        while self.next() and self.next() in digits:
            written += self._take()
        if not written:
            raise self.error('"{" and a number without "}"', start)
        if len(written) > 9 or int(written) > MAX_TIMES:
            raise self.error(f"more than {MAX_TIMES} times", start)
        return int(written)

    def _atom(self, depth: int) -> Node:
        start = self._at
        character = self._take()
        match character:
            case "(":
                return self._group(depth + 1, start)
            case "[":
                return self._bracket(start)
            case ".":
                return _ANY
            case "^":
                return Edge.START
            case "$":
                return Edge.END
            case "\\":
                return self._escaped(start)
            case "*" | "+" | "?":
                raise self.error("nothing to repeat", start)
            case "{" if self.next() in tuple(digits):
                raise self.error("nothing to repeat", start)
            case _:
                return OneOf(frozenset((character,)))

    def _group(self, depth: int, start: int) -> Node:
        if depth > MAX_NESTED:
            raise self.error(f"parentheses more than {MAX_NESTED} deep", start)
        node: Node = Sequence(()) if self.next() == ")" else self.choice(depth)
        if self._take() != ")":
            raise self.error('"(" without ")"', start)
        return node

    def _escaped(self, start: int) -> Node:
        character = self._take()
        if not character:
            raise self.error('"\\" with nothing behind it', start)
        if character in ("<", ">"):
            return Edge(character)
        if character.isalnum():
            # A plain letter on OpenBSD, a class or back reference elsewhere: hardly what was meant.
            hint = "write [[:digit:]] and the like" if character.isalpha() else "there are no back references"
            raise self.error(f'"\\{character}" has no meaning ({hint})', start)
        return OneOf(frozenset((character,)))

    def _bracket(self, start: int) -> Node:
        for marked, edge in (("[:<:]]", Edge.WORD_START), ("[:>:]]", Edge.WORD_END)):
            if self.next(len(marked)) == marked:
                self._at += len(marked)
                return edge
        negated = self.next() == "^"
        self._at += negated
        characters: set[str] = set()
        ranges: list[tuple[str, str]] = []
        first = True
        while first or self.next() != "]":
            first = False
            at = self._at
            if self.next(2) == "[:":
                characters |= self._class()
                low = ""
            elif self.next(2) == "[=":
                characters.add(self._element("="))
                low = ""
            else:
                low = self._end_of_range(start)
            if self.next() == "-" and self.next(2) not in ("-]", "-"):
                if not low:
                    raise self.error("a range that starts with a class", at)
                self._at += 1
                high = self._end_of_range(start)
                if high < low:
                    raise self.error("a range that ends before it starts", at)
                if self.next() == "-" and self.next(2) != "-]":
                    raise self.error("two ranges share an end", at)
                ranges.append((low, high))
            elif low:
                characters.add(low)
        self._at += 1
        return OneOf(frozenset(characters), tuple(ranges), negated)

    def _end_of_range(self, start: int) -> str:
        if self.next(2) == "[.":
            return self._element(".")
        if self.next(2) in ("[:", "[="):
            raise self.error("a range that ends with a class")
        if not self.next():
            raise self.error('"[" without "]"', start)
        return self._take()

    def _class(self) -> frozenset[str]:
        """[:alpha:] and the like, at its first bracket."""
        start = self._at
        end = self._text.find(":]", start + 2)
        name = self._text[start + 2 : end] if end >= 0 else ""
        if name not in CLASSES:
            raise self.error(f'no class of characters "{name[:16]}"', start)
        self._at = end + 2
        if self._both_cases and name in ("lower", "upper"):
            return frozenset(ascii_letters)
        return frozenset(CLASSES[name])

    def _element(self, mark: str) -> str:
        """The one character of [.x.] or [=x=], at its first bracket."""
        start = self._at
        character, closing = self.next(3)[2:], self.next(5)[3:]
        if closing != f"{mark}]":
            raise self.error("a collating element is one character", start)
        self._at += 5
        return character
