"""smtpctl_ps encrypt: hashes for credentials tables."""

import io

import pytest
from passlib.hash import sha512_crypt

from smtpd_ps.cli import smtpctl_ps
from smtpd_ps.cli.encrypt import hash_password


def test_the_hash_is_what_crypt_makes_by_default() -> None:
    """$6$ with a salt and without a rounds field, as crypt(3) of every system reads it; it verifies."""
    made = hash_password("correct horse")
    assert made.startswith("$6$") and "rounds" not in made
    assert sha512_crypt.verify("correct horse", made)
    assert not sha512_crypt.verify("Correct horse", made)


def test_salts_differ() -> None:
    """The same password twice gives two hashes."""
    assert hash_password("x") != hash_password("x")


def test_lines_of_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an argument each line is a password, blanks kept; no daemon is asked."""
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n two \n"))
    assert smtpctl_ps.main(["encrypt"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert sha512_crypt.verify("one", first)
    assert sha512_crypt.verify(" two ", second)


def test_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    """The argument is the password."""
    assert smtpctl_ps.main(["enc", "secret"]) == 0
    assert sha512_crypt.verify("secret", capsys.readouterr().out.strip())
