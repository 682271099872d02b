"""config/lexer: the lexical grammar of smtpd.conf (QUIRKS 16 to 20)."""

import pytest

from smtpd_ps.config.lexer import Lexer, Macros
from smtpd_ps.config.tokens import Kind, SyntaxProblem


def cut(text: str, **defines: str) -> list[str | int]:
    """All tokens: numbers as int, keywords in capitals, quoted words in quotes, others as text."""
    lexer = Lexer(text, "t", Macros(defines))
    out: list[str | int] = []
    while (token := lexer.next()).kind is not Kind.END:
        match token.kind:
            case Kind.NUMBER:
                out.append(token.number)
            case Kind.KEYWORD:
                out.append(token.text.upper())
            case _:
                out.append(f"'{token.text}'" if token.quoted else token.text)
    return out


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("a b", ["a", "b"]),
        ("a\tb\n", ["a", "b", "\n"]),
        ("match from any", ["MATCH", "FROM", "ANY"]),
        ('"match" "any"', ["'match'", "'any'"]),
        ("Match", ["Match"]),  # keywords have a case
        ("matching", ["matching"]),
        ("a,b", ["a", ",", "b"]),
        ("{a}", ["{", "a", "}"]),
        ("<a>", ["<", "a", ">"]),
        ("!tls", ["!", "TLS"]),
        ("a=b", ["a", "=", "b"]),
        ("a=>b", ["a", "=>", "b"]),
        ("a= >b", ["a", "=", ">", "b"]),
        ("a(b)", ["a", "(", "b", ")"]),
    ],
)
def test_words_and_punctuation(text: str, tokens: list[str]) -> None:
    """Words, keywords and single characters (parse.y, yylex)."""
    assert cut(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("file:/x", ["file:/x"]),
        ("/x", ["/", "x"]),
        ("@x", ["@", "x"]),
        ("*.x", ["*", ".", "x"]),
        ("+ -", ["+", "-"]),
        ("::1", ["::1"]),
        ("2001:db8::1/32", ["2001:db8::1/32"]),
        ("fe80::1%em0", ["fe80::1%em0"]),
        ("_x", ["_x"]),
        ("a/b.c;d'e\"f", ["a/b.c;d'e\"f"]),  # quotes inside a word are ordinary
        ("a$b", ["a$b"]),
        ("smtp+tls://u@h:25", ["smtp+tls://u@h:25"]),
        ("é", ["é"]),
    ],
)
def test_what_starts_an_unquoted_word(text: str, tokens: list[str]) -> None:
    """A letter, a digit, _ or : starts a word; anything else has to be quoted (QUIRKS 16)."""
    assert cut(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("25", [25]),
        ("-5", [-5]),
        ("0007", [7]),
        ("1,2", [1, ",", 2]),
        ("{1}", ["{", 1, "}"]),
        ("5=", [5, "="]),
        ("5/a", [5, "/", "a"]),
        ("5)", [5, ")"]),
        ("35M", ["35M"]),
        ("1.5", ["1.5"]),
        ("-5x", ["-", "5x"]),
        ("-x", ["-", "x"]),
        ("127.0.0.1", ["127.0.0.1"]),
        ("25#c", ["25"]),  # a number does not end at #, so this is a word
        ("5>", ["5", ">"]),
        ("9223372036854775807", [2**63 - 1]),
        ("-9223372036854775808", [-(2**63)]),
    ],
)
def test_numbers_are_not_words(text: str, tokens: list[str | int]) -> None:
    """Digits are a number only before a blank, a line end or one of ),/}= (QUIRKS 17)."""
    assert cut(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("'a'", ["'a'"]),
        ('""', ["''"]),
        ('"a\'b"', ["'a'b'"]),
        (r'"a\"b"', ["'a\"b'"]),
        (r'"a\ b"', ["'a b'"]),
        ('"a\\\tb"', ["'a\tb'"]),
        (r'"a\\b"', [r"'a\\b'"]),  # two stay two
        (r'"a\nb"', [r"'a\nb'"]),
        (r'"a\'"', [r"'a\''"]),
        ('"a\nb"', ["'ab'"]),
        ('"a\\\nb"', ["'ab'"]),
        ('"# $x {"', ["'# $x {'"]),
        ('"ü"', ["'ü'"]),
        ('"25"', ["'25'"]),
        ('a"b"', ['a"b"']),
    ],
)
def test_quoting(text: str, tokens: list[str]) -> None:
    """A backslash escapes the quote, space, tab and line feed only; a line feed vanishes (QUIRKS 19)."""
    assert cut(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a # b\nc", ["a", "\n", "c"]),
        ("# b \\\nc\nd", ["\n", "d"]),
        ("a \\\n b", ["a", "b"]),
        ("a\\\nb", ["ab"]),
        ("a\\\n\\\nb", ["ab"]),
        ("a\\b", ["ab"]),
        ('\\"a"', ["'a'"]),  # outside quotes the backslash itself vanishes
        ("a\\", ["a"]),
        ("# no line end", []),
    ],
)
def test_comments_and_joined_lines(text: str, tokens: list[str]) -> None:
    """A backslash at the end joins lines, comments included (QUIRKS 19)."""
    assert cut(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("$m", ["a", "b"]),
        ('"$m"', ["'$m'"]),
        ("x $m y", ["x", "a", "b", "y"]),
        ("$m.c", ["a", "b.c"]),  # the value goes on with what follows
        ("$braces", ["{", "k", "=", "v", "}"]),
        ("$dollar", ["$", "m"]),  # $ is literal in a value
        ("$number", [25]),
        ("$number.5", ["25.5"]),
        ("$comment x\ny", ["c", "\n", "y"]),
        ("$quoted", ["'a b'"]),
        ("$empty x", ["x"]),
        ("$m$m", ["a", "b$m"]),  # inside a word nothing is replaced
        ("$m $m", ["a", "b", "a", "b"]),
    ],
)
def test_macros_are_lexed_again(text: str, tokens: list[str | int]) -> None:
    """The value of a macro is lexed again, with $ literal in it (QUIRKS 20)."""
    values = {
        "m": "a b", "braces": "{ k = v }", "dollar": "$m", "number": "25", "comment": "c # d",
        "quoted": '"a b"', "empty": "",
    }  # fmt: skip
    assert cut(text, **values) == tokens


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("$x", 'macro "x" is not defined'),
        ("${x}", 'expected the name of a macro after "$" (letters, digits and _)'),
        ("$", 'expected the name of a macro after "$" (letters, digits and _)'),
        ('"abc', "the quote that starts here is not closed before the end of the file"),
        ("'abc\\", "the quote that starts here is not closed before the end of the file"),
        ('"a\x00b"', "control character 0x00 in a quoted string"),
        ('"a\x1bb"', "control character 0x1b in a quoted string"),
        ("a" * 8096, "a word of more than 8095 characters"),
        ('"' + "a" * 8096 + '"', "a quoted string of more than 8095 characters"),
        ("9223372036854775808", "the number 9223372036854775808 is out of range"),
        ("9" * 100, f"the number {'9' * 40} is out of range"),
    ],
)
def test_what_is_no_token(text: str, problem: str) -> None:
    """Text that is no token is a problem with its reason."""
    with pytest.raises(SyntaxProblem) as caught:
        cut(text)
    assert caught.value.text == problem


def test_lines_are_counted() -> None:
    """A token has the line it starts in, whatever was joined, quoted or commented before it."""
    text = 'a \\\n b\n# c \\\n d\n"e\nf" g\nh'
    lexer = Lexer(text, "t", Macros({}))
    lines = []
    while (token := lexer.next()).kind is not Kind.END:
        lines.append((token.text, token.where.line))
    assert lines == [("a", 1), ("b", 2), ("\n", 2), ("\n", 4), ("ef", 5), ("g", 6), ("\n", 6), ("h", 7)]


def test_defines_override_files() -> None:
    """-D wins over `name = value` in a file, and what nobody uses is told."""
    macros = Macros({"a": "cmdline", "b": "x"})
    place = Lexer("", "t", macros).next().where
    macros.define("a", "file", place)
    macros.define("c", "file", place)
    assert macros.expand("a") == "cmdline"
    assert [str(problem) for problem in macros.unused()] == [
        '-D: warning: macro "b" is not used',
        't:1: warning: macro "c" is not used',
    ]
