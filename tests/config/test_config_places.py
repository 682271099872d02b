"""config: each problem says its line and column, and what was meant where a known word is near."""

import pytest

from smtpd_ps.config.lexer import Lexer, Macros
from smtpd_ps.config.model import ConfigurationError, Problem
from smtpd_ps.config.tokens import Kind

RULE = "match from any for any reject\n"


def places(text: str, **defines: str) -> list[tuple[int, int]]:
    """Line and column of each token."""
    lexer = Lexer(text, "t", Macros(defines))
    found = []
    while True:
        token = lexer.next()
        found.append((token.where.line, token.where.column))
        if token.kind is Kind.END:
            return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [(1, 1)]),
        ("a b", [(1, 1), (1, 3), (1, 4)]),
        ("a\n  b\n", [(1, 1), (1, 2), (2, 3), (2, 4), (3, 1)]),
        ("\ta", [(1, 2), (1, 3)]),  # a tab is one character
        ('"é" b', [(1, 1), (1, 5), (1, 6)]),
        ("25 {x}", [(1, 1), (1, 4), (1, 5), (1, 6), (1, 7)]),
        ("a=>b", [(1, 1), (1, 2), (1, 4), (1, 5)]),
        ("a \\\n b", [(1, 1), (2, 2), (2, 3)]),  # a joined line is still a line of the file
        ('"a\n b" c', [(1, 1), (2, 5), (2, 6)]),
        ("# x\na", [(1, 4), (2, 1), (2, 2)]),
        ("a $m c", [(1, 1), (1, 3), (1, 3), (1, 6), (1, 7)]),  # both words of m stand where m is named
        ("$m", [(1, 1), (1, 1), (1, 3)]),
    ],
)
def test_places_of_tokens(text: str, expected: list[tuple[int, int]]) -> None:
    """Lines and columns count from 1, in characters of the file; a macro's value stands at its $."""
    assert places(text, m="x yy") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lisen on lo", '1:1: expected a directive or a macro, found "lisen"; did you mean "listen"?'),
        ("  listen on lo prt 25", '1:16: expected an option of listen (auth, auth-optional, ca, ciphers, filter, '
         'hostname, hostnames, inet4, inet6, mask-src, no-dsn, pki, port, protocols, proxy-v2, received-auth, '
         'senders, smtps, tag, tls, tls-require) or the end of the line, found "prt"; did you mean "port"?'),
        ("action a\\\n relai", "2:2: expected what the action does (expand-only, forward-only, lmtp, maildir, mbox, "
         'mda, relay), found "relai"; did you mean "relay"?'),
        ("queue ttl 4", "1:11: expected the queue ttl with a unit: s, m, h or d, found the number 4"),
        ("match from any for any acton b", "1:24: expected a condition"),
        ("action receive mbox\nmatch action recieve",
         '2:14: no action is declared with the name "recieve"; did you mean "receive"?'),
        ('pki mail.example.org cert "/c" key "/k"\nlisten on lo tls pki mail.example.com',
         '2:22: no pki is declared with the name "mail.example.com"; did you mean "mail.example.org"?'),
        ("listen on $nic", '1:11: macro "nic" is not defined'),
        ('nick = "lo"\nlisten on $nic', '2:11: macro "nic" is not defined; did you mean "nick"?'),
        ('m = "lo prt"\nlisten on $m', "2:11: expected an option of listen"),
        ("listen one lo", '1:8: expected "on", found "one"; did you mean "on"?'),
        ('pki p cert "/c" key "/k" dhe legcy',
         '1:30: expected none, legacy, auto, found "legcy"; did you mean "legacy"?'),
        ("mta limit max-con-per-host 3", "1:11: expected a limit of mta (processes, max-conn-per-host,"),
        ('a = "b', "1:5: the quote that starts here is not closed before the end of the file"),
        ("table t { a = b, c }", '1:18: values and "key = value" cannot be mixed in one table: "c"'),
    ],
)  # fmt: skip
def test_places_of_errors(load_text, text: str, expected: str) -> None:
    """file:line:column, what was found and expected, and a near word."""
    with pytest.raises(ConfigurationError) as caught:
        load_text(text)
    first = next(problem for problem in caught.value.problems if not problem.warning)
    assert str(first).startswith(f"/etc/mail/smtpd.conf:{expected}")


def test_a_place_in_an_included_file(load_text) -> None:
    """The column is that of the file that has the error."""
    with pytest.raises(ConfigurationError) as caught:
        load_text(f'include "/inc"\n{RULE}', files={"/inc": "\n  lisen"})
    assert str(caught.value.problems[0]).startswith("/inc:2:3: expected")


def test_places_that_are_not_known() -> None:
    """Without a column the line, without a line the file."""
    assert str(Problem("f", 3, "t", column=9)) == "f:3:9: t"
    assert str(Problem("f", 3, "t", warning=True)) == "f:3: warning: t"
    assert str(Problem("f", 0, "t")) == "f: t"
