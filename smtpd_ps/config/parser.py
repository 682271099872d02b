"""The base of the parser: tokens, statements, macros, include, and going on after an error.

Runs in the parent and in `smtpd_ps -n`. The directives are productions in a table from their
keyword to a function (config/directives); nothing here knows any of them.
"""

import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, Protocol

from smtpd_ps.config.draft import Draft
from smtpd_ps.config.lexer import Lexer, Macros
from smtpd_ps.config.model import Where
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import Kind, SyntaxProblem, Token

MAX_NESTED_FILES = 16
MAX_FILES = 1000
MAX_NAME = 255  # contract.values.Name
MAX_PATH = 1024  # contract.values.Path


class Environment(Protocol):
    """What the configuration asks of the host; handed in, so that tests need none."""

    def read_text(self, path: str) -> str:
        """The file's text, line ends as they are. Raises OSError, UnicodeError."""

    def hostname(self) -> str:
        """The server's name."""

    def interface_addresses(self) -> Mapping[str, tuple[str, ...]]:
        """The IP addresses of each interface."""

    def interface_group(self, name: str) -> tuple[str, ...]:
        """The interfaces of a group (BSD); none where there is no such group."""

    def resolve(self, host: str) -> tuple[str, ...]:
        """The IP addresses of a host name; none where it has none."""

    def service_port(self, name: str) -> int | None:
        """The TCP port of a service of services(5)."""


Production = Callable[["Parser"], None]


class Parser:
    """Reads one file, and by recursion those it includes, into the draft.

    A production is called with its keyword already taken and takes tokens up to the end of the
    statement, which is checked here. `fail` gives up the statement, `report` goes on with it.
    """

    def __init__(
        self,
        path: str,
        draft: Draft,
        environment: Environment,
        macros: Macros,
        productions: Mapping[str, Production],
        outer: tuple[str, ...] = (),
        budget: list[int] | None = None,
    ) -> None:
        self.draft = draft
        self.environment = environment
        self._macros = macros
        self._productions = productions
        self._path = path
        self._open_files = (*outer, posixpath.normpath(path))
        self._budget = [MAX_FILES] if budget is None else budget  # files still to be read, shared
        self._token: Token | None = None
        self._depth = 0  # braces open in this statement
        self.where = Where(path, 0)  # of the statement
        self.taken = Token(Kind.NEWLINE, "", self.where)  # the keyword of the statement
        self._lexer = Lexer("", path, macros)

    # Statements.

    def parse(self) -> None:
        """Read the file. Every problem ends up in the draft; raises nothing of its own."""
        try:
            text = self.environment.read_text(self._path)
        except OSError as error:
            self.draft.report(Where(self._path, 0), f"cannot be read: {error.strerror or error}")
            return
        except UnicodeError:
            self.draft.report(Where(self._path, 0), "is not UTF-8 text")
            return
        self._lexer = Lexer(text, self._path, self._macros)
        while True:
            self._depth = 0
            try:
                if self.peek().kind is Kind.END:
                    return
                self._statement()
            except SyntaxProblem as problem:
                self.draft.report(problem.where, problem.text)
                self._recover()

    def _statement(self) -> None:
        token = self.advance()
        self.where, self.taken = token.where, token
        included = ""
        if token.kind is Kind.NEWLINE:
            return
        if token.kind is Kind.WORD and self.at("="):
            self._macro(token)
        elif token.kind is Kind.KEYWORD and token.text == "include":
            included = self.path("the path of a file to include")
        elif token.kind is Kind.KEYWORD and token.text in self._productions:
            self._productions[token.text](self)
        elif token.kind in (Kind.KEYWORD, Kind.WORD):
            hint = "" if token.quoted else suggestion(token.text, [*self._productions, "include"])
            self.fail(token, f"expected a directive or a macro, found {token.found}{hint}")
        else:
            self.fail(token, f"expected a directive or a macro, found {token.found}")
        self.end_of_statement()
        if included.startswith("/"):
            self._include(included)

    def end_of_statement(self) -> None:
        """The statement must be over here."""
        token = self.peek()
        if token.kind is Kind.NEWLINE:
            self.advance()
        elif token.kind is not Kind.END:
            self.unexpected("the end of the line")

    def _macro(self, name: Token) -> None:
        self.advance()
        if any(char.isspace() for char in name.text):
            self.fail(name, "the name of a macro has no blanks")
        self._macros.define(name.text, self.string("the value of the macro", MAX_PATH * 8), name.where)

    def _include(self, path: str) -> None:
        where = self.where
        if posixpath.normpath(path) in self._open_files:
            self.draft.report(where, f'"{path}" includes itself')
        elif len(self._open_files) >= MAX_NESTED_FILES:
            self.draft.report(where, f"files include each other more than {MAX_NESTED_FILES} deep")
        elif not self._budget[0]:
            self.draft.report(where, f"more than {MAX_FILES} files are included")
        else:
            self._budget[0] -= 1
            args = (self.draft, self.environment, self._macros, self._productions, self._open_files, self._budget)
            Parser(path, *args).parse()

    def _recover(self) -> None:
        """Skip to the next line, or past the braces that are open, or to the next directive."""
        while True:
            try:
                token = self.advance()
                if token.kind is Kind.END:
                    self._token = token
                    return
                if token.kind is not Kind.NEWLINE:
                    continue
                following = self.peek()
                if self._depth <= 0 or (following.kind is Kind.KEYWORD and following.text in self._productions):
                    return
            except SyntaxProblem:
                continue  # the statement is reported already, and each problem takes characters

    # Tokens.

    def peek(self) -> Token:
        """The next token, not taken."""
        if self._token is None:
            self._token = self._lexer.next()
        return self._token

    def advance(self) -> Token:
        """Take the next token."""
        token, self._token = self.peek(), None
        if token.kind is Kind.PUNCTUATION:
            self._depth += (token.text == "{") - (token.text == "}")
        return token

    def at(self, *texts: str) -> bool:
        """Whether the next token is one of these keywords or punctuation."""
        token = self.peek()
        return token.kind in (Kind.KEYWORD, Kind.PUNCTUATION) and token.text in texts

    def accept(self, *texts: str) -> Token | None:
        """Take the next token if it is one of these keywords or punctuation."""
        return self.advance() if self.at(*texts) else None

    def expect(self, *texts: str) -> Token:
        """Take the next token, which must be one of these keywords or punctuation."""
        if not self.at(*texts):
            self.unexpected(" or ".join(f'"{text}"' for text in texts), texts)
        return self.advance()

    def skip_newlines(self) -> bool:
        """Take line ends, if any; says whether there were some."""
        found = False
        while self.peek().kind is Kind.NEWLINE:
            self.advance()
            found = True
        return found

    # Values.

    def string(self, what: str, longest: int = MAX_NAME) -> str:
        """A value: a word or a quoted string, not a reserved word and not a number."""
        token = self.peek()
        if token.kind is not Kind.WORD:
            self.unexpected(what, value=True)
        if len(token.text.encode(errors="replace")) > longest:
            self.report(token, f"{what} is longer than {longest} bytes")
        return self.advance().text

    def name(self, what: str, longest: int = MAX_NAME, *, blanks: bool = False) -> str:
        """A value that is not empty and, unless they are allowed, has no blanks."""
        token = self.peek()
        text = self.string(what, longest)
        if not text.strip():
            self.report(token, f"{what} may not be empty")
        elif not blanks and any(char.isspace() for char in text):
            self.report(token, f'{what} has no blanks: "{text}"')
        return text

    def path(self, what: str) -> str:
        """An absolute path."""
        token = self.peek()
        text = self.string(what, MAX_PATH)
        if not text.startswith("/"):
            self.report(token, f'{what} must start with "/": "{text}"')
        return text

    def number(self, what: str, least: int, most: int = 2**32 - 1) -> int:
        """A number within bounds."""
        token = self.peek()
        if token.kind is not Kind.NUMBER:
            self.unexpected(f"a number{' without quotes' if token.text.isdigit() else ''} for {what}")
        if not least <= token.number <= most:
            self.report(token, f"{what} must be at least {least} and at most {most}, found {token.number}")
            self.advance()
            return least
        return self.advance().number

    # Problems.

    def fail(self, token: Token, text: str) -> NoReturn:
        """Report and give up the statement."""
        raise SyntaxProblem(token.where, text)

    def report(self, token: Token, text: str) -> None:
        """Report and go on with the statement."""
        self.draft.report(token.where, text)

    def warn(self, token: Token, text: str) -> None:
        """A warning."""
        self.draft.warn(token.where, text)

    def unexpected(self, wanted: str, known: Iterable[str] = (), *, value: bool = False) -> NoReturn:
        """Give up the statement: `expected WANTED, found ...`.

        Adds a word of `known` that is near, or, where a value is wanted, that it must be quoted.
        """
        token = self.peek()
        hint = ""
        if token.kind is Kind.WORD and not token.quoted:
            hint = suggestion(token.text, known)
        elif value and token.kind is Kind.KEYWORD:
            hint = "; quote it to use it as a value"
        elif value and token.kind is Kind.NUMBER:
            hint = "; quote it to use it as text"
        elif value and token.kind is Kind.PUNCTUATION and token.text in "/@*+-.[~%&;|?^":
            hint = f'; a value that starts with "{token.text}" must be quoted'
        self.fail(token, f"expected {wanted}, found {token.found}{hint}")

    def option(
        self,
        owner: str,
        supported: Iterable[str],
        unsupported: frozenset[str],
        closing: str = " or the end of the line",
    ) -> Token:
        """Take the keyword of an option. An option that does not work yet gives up the statement."""
        token = self.peek()
        if token.kind is Kind.KEYWORD and token.text in unsupported:
            self.fail(token, f"{token.text} is not supported yet")
        if token.kind is not Kind.KEYWORD or token.text not in supported:
            words = sorted(supported)
            self.unexpected(f"an option of {owner} ({', '.join(words)}){closing}", words)
        return self.advance()
