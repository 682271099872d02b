"""The command line of an MDA: specifiers put in so that no value changes what the line says.

Pure; runs in agents for each message and in the parent when the configuration is checked. Addresses
of strangers get into lines that `/bin/sh -c` reads, and that a wrapper may have read once more
(smtpd.conf(5) mda; OpenSMTPD's mda_unpriv.c). So that it does not matter between which quotes a
specifier stands, or how often the line is read:

- a value keeps letters, digits, printable characters beyond ASCII and `@.+=_,-`; whatever else it has
  becomes `:`, and so does a `-` at its beginning, which would make it an option;
- a value that is empty becomes `''` where it stands outside quotes, so that no word is lost;
- with `:raw`, and for the home directory, nothing is replaced: what a shell would act on is refused.
"""

from collections.abc import Mapping

from smtpd_ps.pure.format_specifier import Format, FormatError, Specifier, parse_format, unsanitised

MDA = "mda"  # the specifier of a wrapper
MAX_COMMAND_BYTES = 8192
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@.+=_,-:")
_RAW = _PLAIN | frozenset("/%")  # what no shell acts on, wherever it stands; "/" only leads out of a folder


def parse_command(text: str, wrapper: bool = False) -> Format:
    """The parts of a command. Raises FormatError, naming the specifier that is wrong."""
    if not text.strip():
        raise FormatError("a command without words")
    if any(char != "\t" and not char.isprintable() for char in text):
        raise FormatError("a command is one line without control characters")
    return parse_format(text, frozenset((MDA,)) if wrapper else frozenset())


def expand_command(format_: Format, values: Mapping[str, str], delimiter: str = "+", mda: str = "") -> str:
    """The line for the shell. `mda` is the command that a wrapper runs, whole. Raises FormatError."""
    out: list[str] = []
    quote = ""
    for part in format_.parts:
        if isinstance(part, str):
            out.append(part)
            quote = _quote_after(part, quote)
        elif part.name == MDA:
            out.append(mda)
        else:
            out.append(_value(part, values, delimiter) or ("" if quote else "''"))
    line = "".join(out)
    if len(line.encode(errors="surrogateescape")) > MAX_COMMAND_BYTES:
        raise FormatError("the command expands to too much")
    return line


def _value(specifier: Specifier, values: Mapping[str, str], delimiter: str) -> str:
    value = unsanitised(specifier, values, delimiter)
    if "raw" in specifier.modifiers or specifier.name == "user.directory":
        if value.startswith("-") or not all(_inert(char, _RAW) for char in value):
            raise FormatError(f"%{{{specifier.name}}} has characters that a shell acts on")
        return value
    value = "".join(char if _inert(char, _PLAIN) else ":" for char in value)
    return f":{value[1:]}" if value.startswith("-") else value


def _inert(char: str, ascii_: frozenset[str]) -> bool:
    return char in ascii_ or (char > "\xa0" and char.isprintable())


def _quote_after(text: str, quote: str) -> str:
    """In which quotes a shell is after `text`, where it was in `quote` before ("" for none)."""
    escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif quote == "'":
            quote = "" if char == "'" else quote
        elif char == "\\":
            escaped = True
        elif char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
    return quote


def quoted(text: str) -> str:
    """`text` as one word of a command line, specifiers in it left as they are."""
    return "'" + text.replace("'", "'\\''") + "'"


def store_command(python: str, *words: str) -> str:
    """The command that puts a message on its input into a store of ours (agents/store), for a wrapper.

    `words` are in the form in which they stand on a command line.
    """
    return f"{quoted(python)} -I -X utf8 -m smtpd_ps.agents.store {' '.join(words)}"
