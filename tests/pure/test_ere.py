"""POSIX extended regular expressions: what matches, what is refused, and what it costs."""

import re
from string import ascii_lowercase, digits, printable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure import ere
from smtpd_ps.pure.ere import Ere
from smtpd_ps.pure.ere_syntax import CLASSES, EreError, parse


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("a.c", ["abc", "xxa.cyy", "a\u00e9c"], ["ac", "abbc"]),
        ("^mail", ["mail", "mailhost"], ["email", ""]),
        ("mail$", ["mail", "email"], ["mails"]),
        ("^$", [""], ["a", "\n"]),
        ("a^b|b$c", [], ["a^b", "ab", "b$c", "bc"]),
        ("^(a|^b)", ["a", "b"], ["xb"]),
        ("colou?r", ["color", "colour"], ["colouur"]),
        ("^ab*$", ["a", "ab", "abbb"], ["aab"]),
        ("^ab+$", ["ab", "abb"], ["a"]),
        ("^(ab){2}$", ["abab"], ["ab", "ababab"]),
        ("^a{2,}$", ["aa", "aaaaa"], ["a"]),
        ("^a{1,2}$", ["a", "aa"], ["", "aaa"]),
        ("^a{0}b$", ["b"], ["ab"]),
        ("^(a|bc|())d$", ["ad", "bcd", "d"], ["bd"]),
        ("a{x}", ["a{x}"], ["aa"]),
        ("a{,2}", ["a{,2}"], ["aa"]),
        ("^{$", ["{"], [""]),
        (r"^\.\*\[\]\(\)\{\}\^\$\|\\\+\?$", [r".*[](){}^$|\+?"], [""]),
        (r"^a\-b\@c$", ["a-b@c"], ["a\\-b@c"]),
        ("^[abc]$", ["a", "c"], ["d", "ab"]),
        ("^[^abc]$", ["d", "]"], ["a", ""]),
        ("^[]a]$", ["]", "a"], ["[", "]a"]),
        ("^[^]a]$", ["b"], ["]", "a"]),
        ("^[a-]$", ["a", "-"], ["b"]),
        ("^[-a]$", ["a", "-"], ["b"]),
        ("^[+--]$", ["+", ",", "-"], ["."]),
        ("^[a-c-]$", ["b", "-"], ["d"]),
        (r"^[\.]$", ["\\", "."], ["a"]),
        ("^[[.-.]x]$", ["-", "x"], ["."]),
        ("^[[=a=]]$", ["a"], ["="]),
        ("^[[.a.]-[.c.]]$", ["b"], ["."]),
        ("^[[:digit:][:blank:]x]+$", ["1 x\t9"], ["y", ""]),
        ("^[^[:space:]]$", ["a"], [" ", "\n"]),
        ("^[[:upper:]]$", [], ["a"]),
        ("(?i)^[[:upper:]]$", ["a"], ["1"]),
        ("(?i)^MiXed$", ["mixed"], ["mixe"]),
        ("^[A-C]X$", ["bx"], ["dx"]),
        ("[[:<:]]mail[[:>:]]", ["mail", "e-mail.example"], ["mails", "email", "mail_x"]),
        (r"\<mail\>", ["my mail here"], ["mails"]),
        ("a$*b", ["ab"], ["a"]),
        ("^(^)*a", ["a"], ["ba"]),
        ("(a*)*b", ["b", "aab"], ["a"]),
        ("(()|a)+$", ["", "b"], []),
    ],
)  # fmt: skip
def test_what_matches(pattern: str, matches: list[str], others: list[str]) -> None:
    """Each construct of re_format(7), on text that it takes and text that it does not."""
    search = Ere((pattern,)).search
    assert [text for text in matches if not search(text)] == []
    assert [text for text in others if search(text)] == []


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_classes(name: str) -> None:
    """[:name:] is the class of the C locale, with what is not ASCII in none."""
    wanted = {
        "alnum": str.isalnum, "alpha": str.isalpha, "digit": str.isdigit, "lower": str.islower,
        "upper": str.isupper, "space": str.isspace, "blank": lambda c: c in " \t",
        "cntrl": lambda c: ord(c) < 32 or ord(c) == 127, "graph": lambda c: 32 < ord(c) < 127,
        "print": lambda c: 32 <= ord(c) < 127, "punct": lambda c: 32 < ord(c) < 127 and not c.isalnum(),
        "xdigit": lambda c: c in "0123456789abcdefABCDEF",
    }[name]  # fmt: skip
    search = Ere((f"[[:{name}:]]",)).search
    separators = "\x1c\x1d\x1e\x1f"  # space to Python alone
    for character in map(chr, range(128)):
        expected = wanted(character) and not (name == "space" and character in separators)
        assert search(character) is bool(expected), repr(character)
    assert not search("\u00e4")


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("", "an empty pattern or branch at character 1"),
        ("(?i)", "an empty pattern or branch at character 5"),
        ("a|", "an empty pattern or branch at character 3"),
        ("|a", "an empty pattern or branch at character 1"),
        ("(a||b)", "an empty pattern or branch at character 4"),
        ("(a", '"(" without ")" at character 1'),
        ("a)", '")" without "(" at character 2'),
        ("*a", "nothing to repeat at character 1"),
        ("^*", "nothing to repeat at character 2"),
        ("(+)", "nothing to repeat at character 2"),
        ("{1}", "nothing to repeat at character 1"),
        ("(?:a)", "nothing to repeat at character 2"),
        ("a**", "a repetition of a repetition at character 3"),
        ("a+?", "a repetition of a repetition at character 3"),
        ("a{2", '"{" and a number without "}" at character 2'),
        ("a{2,x}", '"{" and a number without "}" at character 2'),
        ("a{3,2}", "a bound that ends before it starts at character 2"),
        ("a{256}", "more than 255 times at character 2"),
        ("a{1,99999999999999999999}", "more than 255 times at character 2"),
        ("a\\", '"\\" with nothing behind it at character 2'),
        (r"\d", '"\\d" has no meaning (write [[:digit:]] and the like) at character 1'),
        (r"(a)\1", '"\\1" has no meaning (there are no back references) at character 4'),
        ("[a", '"[" without "]" at character 1'),
        ("[]", '"[" without "]" at character 1'),
        ("[^]", '"[" without "]" at character 1'),
        ("[a-", '"[" without "]" at character 1'),
        ("[z-a]", "a range that ends before it starts at character 2"),
        ("[a-c-e]", "two ranges share an end at character 2"),
        ("[a-[:digit:]]", "a range that ends with a class at character 4"),
        ("[[:digit:]-z]", "a range that starts with a class at character 2"),
        ("[[:letter:]]", 'no class of characters "letter" at character 2'),
        ("[[:alpha]", 'no class of characters "" at character 2'),
        ("[[.hyphen.]]", "a collating element is one character at character 2"),
        ("[[=ch=]]", "a collating element is one character at character 2"),
        ("(" * 51 + ")" * 51, "parentheses more than 50 deep at character 51"),
        ("a{200}{2}", "a repetition of a repetition at character 7"),
        ("((a{255}){255}){255}", "with its repetitions written out it is too large"),
        ("((((((((){255}){255}){255}){255}){255}){255}){255})", "with its repetitions written out it is too large"),
    ],
)
def test_errors(pattern: str, error: str) -> None:
    """A pattern that regcomp(3) refuses, or that means different things on different systems."""
    with pytest.raises(EreError) as caught:
        Ere((pattern,))
    assert str(caught.value) == error


def test_several_patterns() -> None:
    """One search finds a match of any of the patterns; without patterns there is none."""
    search = Ere(("^a", "b$", "[0-9]{3}")).search
    assert [text for text in ("ax", "xb", "x123x", "", "ba", "12") if search(text)] == ["ax", "xb", "x123x"]
    assert not Ere(()).search("")
    assert not Ere(()).search("a")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 5000 + "!"),
        ("^(a|aa)+$", "a" * 5000 + "!"),
        ("(x+x+)+y", "x" * 5000),
        ("^(([a-z])+.)+[0-9]([a-z])+$", "a" * 5000),
        ("^" + "a?" * 500 + "a{255}a{245}$", "a" * 499),
        ("(.*)(.*)(.*)(.*)(.*)[^x]", "x" * 5000),
    ],
)
def test_no_text_costs_more_than_its_length_allows(pattern: str, text: str) -> None:
    """Patterns that take a backtracking matcher longer than the universe lasts end at once."""
    assert Ere((pattern,)).search(text) is False


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is thrown away before it grows large, and the answers stay right."""
    monkeypatch.setattr(ere, "MAX_REMEMBERED", 50)
    compiled = Ere(("(a|b)*a(a|b){6}$",))
    expected = re.compile("a[ab]{6}$")
    for number in range(2**10):
        text = f"{number:010b}".replace("0", "a").replace("1", "b")
        assert compiled.search(text) is (expected.search(text) is not None)
        assert compiled._remembered < 150


def _both(text: str) -> tuple[str, str]:
    return text, text


def _joined(parts: list[tuple[str, str]], between: str) -> tuple[str, str]:
    return "(" + between.join(p for p, _ in parts) + ")", "(?:" + between.join(q for _, q in parts) + ")"


_atoms = st.one_of(
    st.sampled_from("abc.").map(_both),
    st.sampled_from(["[ab]", "[^a]", "[b-c]", "[-a]", r"\.", r"\*", "[]a]", "[^]b]"]).map(_both),
    st.just(("[[:digit:]]", "[0-9]")),
    st.just(("^", r"\A")),
    st.just(("$", r"\Z")),
    st.just(("()", "(?:)")),
)
_repeated = st.tuples(
    _atoms.filter(lambda pair: pair[0] not in "^$"),
    st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "{0,1}"]),
).map(lambda made: (made[0][0] + made[1], made[0][1] + made[1]))
_patterns = st.recursive(
    _atoms | _repeated,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(lambda parts: _joined(parts, "")),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: _joined(parts, "|")),
        st.tuples(st.lists(inner, min_size=1, max_size=3), st.sampled_from(["*", "+", "?", "{1,2}"])).map(
            lambda made: tuple(side + made[1] for side in _joined(made[0], ""))  # type: ignore[arg-type,return-value]
        ),
    ),
    max_leaves=8,
)


@given(st.lists(_patterns, min_size=1, max_size=3), st.lists(st.text("abc.*1]-", max_size=8), min_size=1, max_size=6))
def test_same_answers_as_re(patterns: list[tuple[str, str]], texts: list[str]) -> None:
    """Where the two notations agree, so do the answers."""
    compiled = Ere(pattern for pattern, _ in patterns)
    expected = re.compile("|".join(f"(?:{pattern})" for _, pattern in patterns), re.DOTALL)
    for text in texts:
        assert compiled.search(text) is (expected.search(text) is not None), (patterns, text)


@given(st.text("ab01()[]{}^$.*+?|\\-,:=<>idgt", max_size=24) | st.text(printable, max_size=24), st.text(max_size=12))
def test_any_text_is_a_pattern_or_an_error(pattern: str, text: str) -> None:
    """No input raises anything but EreError."""
    try:
        Ere((pattern,)).search(text.lower())
    except EreError as error:
        assert str(error)


@given(st.text(ascii_lowercase + digits + ".-_@ ", min_size=1))
def test_plain_text_matches_itself(text: str) -> None:
    """A text with its special characters escaped is found in itself."""
    escaped = "".join(c if c.isalnum() else f"[{c}]" for c in text)
    assert Ere((escaped,)).search(f"x{text}x")
    assert parse(escaped) == parse(escaped.upper())
