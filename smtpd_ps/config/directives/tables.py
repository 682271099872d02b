"""`table`, and the values that may stand wherever a table may: `a`, `{ a, b }`, `{ a = b }`, `<name>`.

Runs in the parent and in `smtpd_ps -n`. Files are not opened here: lookup reads them.
"""

import re

from smtpd_ps.config.commands import command_words
from smtpd_ps.config.model import Table, TableKind, Where
from smtpd_ps.config.parser import MAX_PATH, Parser
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.contract.settings import TableUse
from smtpd_ps.pure.table_uses import NEEDS, check_entry, check_together, kinds_for

MAX_KEY = 1023  # table_static.c
MAX_VALUE = 2048  # contract.values.Line
MAX_ENTRIES = 100_000  # contract.settings.TableSettings
_FILE_TYPES = ("", "file", "static")
_COMMAND = "proc-exec:"  # ours
_PROGRAM_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_WORDS = {"list": "list", "map": "mapping"}

Entries = tuple[tuple[str, str], ...]


def table(p: Parser) -> None:
    """`table NAME [file:]/path`, `table NAME db:/path`, `table NAME getpwnam`, `table NAME { values }`.

    And those that a program answers for: `table NAME TYPE[:/path]`, `table NAME proc-exec:command`.
    """
    where = p.where
    name = p.name("the name of a table", blanks=True)
    known = p.draft.tables.get(name)
    if known is not None:
        p.draft.report(where, f'table "{name}" is already declared at {known.where.path}:{known.where.line}')
    if name.startswith("<"):
        p.draft.report(where, 'the name of a table may not start with "<"')
    with p.draft.declaring("table", name):
        if p.at("{"):
            kind, entries = inline_values(p)
            made = Table(name, kind, entries, "", where)
        elif p.peek().kind is Kind.WORD:
            made = _file_table(p, name, where)
        else:
            p.unexpected('a path in quotes, file:/path or "{" on the same line')
    p.draft.tables.setdefault(name, made)


def _file_table(p: Parser, name: str, where: Where) -> Table:
    token = p.peek()
    text = p.string("a path or type:/path", MAX_PATH)
    if text.startswith(_COMMAND):
        return _program_table(p, token, name, where, text, text.removeprefix(_COMMAND))
    if text == "getpwnam":
        return Table(name, "getpwnam", (), "", where)
    backend, path = ("", text) if text.startswith("/") else text.split(":", 1) if ":" in text else (text, "")
    if backend == "getpwnam":
        p.fail(token, "getpwnam asks the system and takes no path")
    if backend != "db" and backend not in _FILE_TYPES:
        if backend == "proc":
            p.fail(token, "a program is named by its own type, such as ldap:/path, or by proc-exec:command")
        if not _PROGRAM_TYPE.fullmatch(backend) or (path and not path.startswith("/")):
            p.fail(token, _no_source(text))
        return _program_table(p, token, name, where, text, "")
    if not path.startswith("/"):
        p.fail(token, _no_source(text))
    return Table(name, "db" if backend == "db" else "file", (), path, where)


def _program_table(p: Parser, token: Token, name: str, where: Where, text: str, command: str) -> Table:
    """`TYPE:/path` runs table-TYPE with the path as its argument; a command of ours runs as it stands."""
    if "|" in name or not name.isprintable():
        p.fail(token, 'the name of a table that a program answers for may not have "|" or control characters in it')
    if command or text == _COMMAND:
        try:
            words, shell = command_words(command)
        except ValueError as error:
            p.fail(token, str(error))
        return Table(name, "program", (), "", where, text, words, shell)
    kind, _, argument = text.partition(":")
    words = (f"table-{kind}", argument) if argument else (f"table-{kind}",)
    return Table(name, "program", (), "", where, text, words)


def _no_source(text: str) -> str:
    return f'expected a path that starts with "/", file:/path, type:/path or values in braces, found "{text}"'


def inline_values(p: Parser) -> tuple[TableKind, Entries]:
    """`{ a, b }` or `{ k = v, ... }`: commas, line ends or nothing between the values."""
    opening = p.expect("{")
    p.skip_newlines()
    entries: dict[str, tuple[str, str]] = {}
    kind: TableKind = "list"
    while True:
        token = p.peek()
        key = p.string("a value", MAX_KEY)
        value = ""
        this: TableKind = "list"
        if p.accept("=", "=>"):
            this = "map"
            value = p.string("the value of the key", MAX_VALUE)
        if not entries:
            kind = this
        elif kind != this:
            p.fail(token, f'values and "key = value" cannot be mixed in one table: "{token.text}"')
        entries[key.lower()] = key, value  # keys compare without case (table(5))
        if p.accept(","):
            p.skip_newlines()
            continue
        p.skip_newlines()
        if p.accept("}"):
            break
        if p.at("="):
            p.unexpected('a value or "}" ("=" stands on the line of its key)')
        if p.peek().kind is not Kind.WORD:
            p.unexpected('a value, a comma or "}"', value=True)
    if len(entries) > MAX_ENTRIES:
        p.report(opening, f"more than {MAX_ENTRIES} values; use a file")
    return kind, tuple(entries.values())


def at_table(p: Parser) -> bool:
    """Whether a value, values in braces or <name> comes next."""
    return p.peek().kind is Kind.WORD or p.at("{", "<")


def table_argument(p: Parser, purpose: str, use: TableUse, programs: bool = False, copied: bool = False) -> str:
    """The table for `purpose`, the words before it; its name, "" where there is none such (reported).

    What `use` asks (pure/table_uses) is checked here of values in place and of tables declared with
    values; of files lookup checks it when it reads them. `programs` says that lookup asks a program
    for this, `copied` that values in smtpd.conf go into the setting itself: lookup gets no table of them.
    """
    token = p.peek()
    if p.at("<"):
        p.advance()
        token = p.peek()
        name = p.name("the name of a table", blanks=True)
        p.expect(">")
        if name not in p.draft.tables:
            if ("table", name) not in p.draft.broken:
                named = [known for known in p.draft.tables if not known.startswith("<")]
                p.report(token, f'no table is declared with the name "{name}"{suggestion(name, named)}')
            return ""
        if p.draft.tables[name].kind == "program" and not programs:
            p.report(token, f'{purpose} takes no table of a program, which "{name}" is')
        _check_use(p, name, purpose, use, token, copied)
        return name
    if p.at("{"):
        kind, entries = inline_values(p)
    elif token.kind is Kind.WORD:
        kind, entries = "list", ((p.string(f"a value for {purpose}", MAX_KEY), ""),)
    else:
        p.unexpected(f'a value, <table> or values in braces after "{purpose}"', value=True)
    name = p.draft.add_inline_table(kind, entries, token.where)
    _check_use(p, name, purpose, use, token, copied)
    return name


def _check_use(p: Parser, name: str, purpose: str, use: TableUse, token: Token, copied: bool) -> None:
    """Note the use, if lookup is to serve it, and report what the table lacks for it."""
    made = p.draft.tables[name]
    in_place = name.startswith("<")
    where = token.where if in_place else p.where
    kind = made.kind
    known = p.draft.uses.get(name, {})
    before = kinds_for(known)
    known = {**known, use: None}
    if not copied or kind not in ("list", "map"):
        p.draft.uses[name] = known
    wanted = kinds_for((use,))
    if kind == "file":
        if not kinds_for(known) and before:
            is_a = _WORDS[before[0]]
            p.draft.report(where, f'{purpose} needs {NEEDS[wanted[0]]}, but table "{name}" is used as a {is_a} above')
        return
    if kind == "program":
        return  # it says itself which services it offers
    if kind == "db":
        return  # of a mapping the keys are a list, and of a list lookup says that it is none
    if kind == "getpwnam":
        if use != "userinfo":
            p.draft.report(where, f'table "{name}" knows the users of the system, and cannot be used for {purpose}')
        return
    if kind not in wanted:
        what = "these values are" if in_place else f'table "{name}" is'
        p.draft.report(where, f"{purpose} needs {NEEDS[wanted[0]]}, but {what} a {_WORDS[kind]}")
        return
    good = True
    for key, value in made.entries:
        try:
            check_entry((use,), key, value)
        except ValueError as error:
            good = False
            p.report(token, str(error))
    if good:
        try:
            check_together((use,), [key for key, _value in made.entries])
        except ValueError as error:
            p.report(token, str(error))
