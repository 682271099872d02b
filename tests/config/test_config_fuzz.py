"""config/load: no input does anything but load or raise ConfigurationError."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpd_ps.config.compile import compile_settings
from smtpd_ps.config.lexer import Lexer, Macros
from smtpd_ps.config.model import ConfigurationError
from smtpd_ps.config.tokens import KEYWORDS, Kind, SyntaxProblem

WORDS = [
    *sorted(KEYWORDS), "lo", "if0", "egress", "a", "b", "p", "a.example", "smtps://u@h", "max-rcpt", "max-inflight",
    "4d", "35M", "file:/x", '"/x"', '"', "'", "{", "}", "<", ">", "!", "=", "=>", ",", "25", "-1", "0", "$m", "$",
    "\\", "\n", "\n", "\n", "\\\n", "#", "é", "\x00", "m = a", "max-conn-per-host", "submission", '"%{dest}"',
]  # fmt: skip
SENTENCES = [
    "m = a\n", 'pki p cert "/c" key "/k"\n', "table a { x, y }\n", "table b { x = y }\n", 'table c "/c"\n',
    "listen on lo tls pki p auth <c>\n", "listen on socket tag t\n", "action a relay host smtp://h\n",
    "action b maildir alias <b>\n", "match from any for domain <a> action a\n", "match auth action b\n",
    'include "/inc"\n', "match reject\n",
]  # fmt: skip


def accept(load_text, text: str) -> None:
    try:
        conf = load_text(text, files={"/inc": "match from any action nope\n", "/x": text})
        compile_settings(conf)
    except ConfigurationError as error:
        assert any(not problem.warning for problem in error.problems)
        assert all(str(problem).isprintable() for problem in error.problems)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=300))
def test_any_text(load_text, text: str) -> None:
    """Text of any characters."""
    accept(load_text, text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(words=st.lists(st.sampled_from(WORDS), max_size=60))
def test_any_order_of_words(load_text, words: list[str]) -> None:
    """The words of the language in any order."""
    accept(load_text, " ".join(words))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    sentences=st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=12),
    cut=st.integers(0, 400),
    gone=st.integers(0, 6),
    put=st.sampled_from(["", *WORDS]),
)
def test_damaged_configurations(load_text, sentences: list[str], cut: int, gone: int, put: str) -> None:
    """Right statements with characters lost and words put in."""
    text = "".join(sentences)
    accept(load_text, text[:cut] + put + text[cut + gone :])


@settings(deadline=None)
@given(text=st.text(max_size=200), value=st.text(max_size=50))
def test_the_lexer_ends(text: str, value: str) -> None:
    """Each token or problem takes characters, so that the end is reached; lines never run back."""
    lexer = Lexer(text, "t", Macros({"m": value}))
    line = 1
    for _ in range(len(text) * (len(value) + 2) + 2):
        try:
            token = lexer.next()
        except SyntaxProblem as problem:
            assert problem.where.line >= line
            continue
        assert token.where.line >= line
        line = token.where.line
        if token.kind is Kind.END:
            return
    raise AssertionError("the lexer does not end")
