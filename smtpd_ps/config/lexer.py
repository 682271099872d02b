"""The lexer of smtpd.conf: text to tokens, macros expanded on the way.

Runs in the parent and in `smtpd_ps -n`; parses the administrator's file. The rules are those of
OpenSMTPD 7.8 (parse.y, yylex and lgetc):

- Outside quotes a backslash before a line feed joins two lines, in comments too; before any
  other character it vanishes.
- Inside quotes (single or double) it escapes the quote, a space, a tab or a line feed, and stays
  before anything else; a line feed vanishes.
- `$name` is replaced by the macro's value, which is lexed again, with `$` literal in it. There
  is none of that inside quotes or words.
- Digits are a number only if a blank, a line feed or one of `),/}=` follows.
- An unquoted word starts with a letter, a digit, `_` or `:` and goes on with anything printable
  but `(){}<>!=#,`.
"""

import string

from smtpd_ps.config.model import Problem, Where
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import KEYWORDS, Kind, SyntaxProblem, Token

MAX_STRING = 8095
_ALNUM = frozenset(string.ascii_letters + string.digits)
_DIGITS = frozenset(string.digits)
_WORD_START = _ALNUM | {":", "_"}
_IN_WORD = _ALNUM | (frozenset(string.punctuation) - frozenset("(){}<>!=#,"))
_MACRO_NAME = _ALNUM | {"_"}
_ENDS_NUMBER = frozenset(" \t\n\r\v\f),/}=")
_END = ""  # the character after the last
_MAX_INTEGER = 2**63 - 1


class Macros:
    """The macros, shared by all files. Those of the command line override the files'."""

    def __init__(self, defines: dict[str, str]) -> None:
        self._fixed = defines
        self._values: dict[str, str] = {}
        self._defined: dict[str, Where] = {}
        self._used: set[str] = set()

    def define(self, name: str, value: str, where: Where) -> None:
        """`name = value` in a file; a later definition replaces an earlier one."""
        self._values[name] = value
        self._defined[name] = where

    def expand(self, name: str) -> str | None:
        """The value, or None without such a macro."""
        self._used.add(name)
        return self._fixed.get(name, self._values.get(name))

    def names(self) -> tuple[str, ...]:
        """The macros there are."""
        return (*self._fixed, *self._values)

    def unused(self) -> tuple[Problem, ...]:
        """A warning for each macro that no file used."""
        places = {name: Where("-D", 0) for name in self._fixed} | self._defined
        return tuple(
            Problem(where.path, where.line, f'macro "{name}" is not used', warning=True)
            for name, where in places.items()
            if name not in self._used
        )


class Lexer:
    """Cuts one file into tokens, one at a time: a macro must be defined before the next is cut."""

    def __init__(self, text: str, path: str, macros: Macros) -> None:
        self._text, self._at = text, 0
        self._macro, self._macro_at = "", 0  # the value being read before the text goes on
        self._macros = macros
        self._path, self._line = path, 1
        self._line_start = self._before_start = 0  # where this line begins, and the one before
        self._macro_column = 0  # of the $ whose value is being read
        self._in_macro = False  # whether the last character came from a macro

    def next(self) -> Token:
        """The next token. Raises SyntaxProblem, after which reading may go on."""
        while True:
            char = self._char()
            while char in (" ", "\t"):
                char = self._char()
            if char == "#":
                while char not in ("\n", _END):
                    char = self._char()
            ends_line = char == "\n" and not self._in_macro  # and is counted already
            where = Where(self._path, self._line - ends_line, self._column(char, ends_line))
            if char != "$" or self._in_macro:
                break
            self._expand(where)
        if char == _END:
            return Token(Kind.END, "", where)
        if char == "\n":
            return Token(Kind.NEWLINE, char, where)
        if char in ("'", '"'):
            return Token(Kind.WORD, self._quoted(char, where), where, quoted=True)
        if char in _DIGITS or char == "-":
            number = self._number(char, where)
            if number is not None:
                return number
        if char == "=" and self._peek() == ">":
            self._char()
            return Token(Kind.PUNCTUATION, "=>", where)
        if char in _WORD_START:
            return self._word(char, where)
        return Token(Kind.PUNCTUATION, char, where)

    def _column(self, char: str, ends_line: bool) -> int:
        """Where `char`, just read, stands in its line; in a macro's value, where the macro was named."""
        if self._in_macro:
            return self._macro_column
        start = self._before_start if ends_line else self._line_start
        return self._at - start + (char == _END)

    def _raw(self) -> str:
        """One character, with line feeds of the file counted."""
        if self._macro_at < len(self._macro):
            self._macro_at += 1
            self._in_macro = True
            return self._macro[self._macro_at - 1]
        self._in_macro = False
        if self._at >= len(self._text):
            return _END
        char = self._text[self._at]
        self._at += 1
        if char == "\n":
            self._line += 1
            self._before_start, self._line_start = self._line_start, self._at
        return char

    def _char(self) -> str:
        """One character outside quotes, joined lines and escapes seen to."""
        char = self._raw()
        while char == "\\":
            char = self._raw()
            if char != "\n":
                return char
            char = self._raw()
        return char

    def _mark(self) -> tuple[int, int, int, int]:
        return self._at, self._macro_at, self._line, self._line_start

    def _back(self, mark: tuple[int, int, int, int]) -> None:
        self._at, self._macro_at, self._line, self._line_start = mark

    def _peek(self) -> str:
        mark = self._mark()
        char = self._char()
        self._back(mark)
        return char

    def _run(self, first: str, allowed: frozenset[str], where: Where) -> str:
        chars = [first]
        while (char := self._peek()) != _END and char in allowed:
            chars.append(self._char())
            if len(chars) > MAX_STRING:
                raise SyntaxProblem(where, f"a word of more than {MAX_STRING} characters")
        return "".join(chars)

    def _expand(self, where: Where) -> None:
        name = self._run("", _MACRO_NAME, where)
        value = self._macros.expand(name)
        if not name:
            raise SyntaxProblem(where, 'expected the name of a macro after "$" (letters, digits and _)')
        if value is None:
            hint = suggestion(name, self._macros.names())
            raise SyntaxProblem(where, f'macro "{name}" is not defined{hint}')
        self._macro, self._macro_at, self._macro_column = value, 0, where.column

    def _quoted(self, quote: str, where: Where) -> str:
        chars: list[str] = []
        while (char := self._raw()) != quote:
            if char == "\\":
                mark = self._mark()
                escaped = self._raw()
                if escaped == "\n":
                    continue
                if escaped in (quote, " ", "\t"):
                    char = escaped
                else:
                    self._back(mark)
            elif char == "\n":
                continue
            if char == _END:
                raise SyntaxProblem(where, "the quote that starts here is not closed before the end of the file")
            if char != "\t" and (char < " " or char == "\x7f"):
                raise SyntaxProblem(where, f"control character 0x{ord(char):02x} in a quoted string")
            if len(chars) >= MAX_STRING:
                raise SyntaxProblem(where, f"a quoted string of more than {MAX_STRING} characters")
            chars.append(char)
        return "".join(chars)

    def _number(self, first: str, where: Where) -> Token | None:
        """A number, or None where the characters start something else; they are then unread."""
        mark = self._mark()
        digits = self._run(first, _DIGITS, where)
        if digits == "-" or (self._peek() not in _ENDS_NUMBER and self._peek() != _END):
            self._back(mark)
            return None
        if len(digits) > 20 or not -_MAX_INTEGER - 1 <= int(digits) <= _MAX_INTEGER:
            raise SyntaxProblem(where, f"the number {digits[:40]} is out of range")
        return Token(Kind.NUMBER, digits, where, number=int(digits))

    def _word(self, first: str, where: Where) -> Token:
        text = self._run(first, _IN_WORD, where)
        return Token(Kind.KEYWORD if text in KEYWORDS else Kind.WORD, text, where)
