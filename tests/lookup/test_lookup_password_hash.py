"""Password hashes: the system's crypt(3) and passlib, which must agree."""

import ctypes
import importlib.util
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.lookup.credentials import DUMMY, schemes_in, stored_hash
from smtpd_ps.lookup.password_hash import PasswordHashes, Verdict, scheme_of
from smtpd_ps.osdep import crypt_r
from smtpd_ps.pure.table import Table

SYSTEM = crypt_r.load()
SYSTEM_HASHES = PasswordHashes(SYSTEM)
PASSLIB_HASHES = PasswordHashes(None)
PASSLIB_MISSING = PASSLIB_HASHES.preload(crypt_r.KNOWN)
BCRYPT = ("$2a$", "$2b$", "$2y$")


@pytest.mark.parametrize("scheme", crypt_r.KNOWN)
def test_system(scheme: str) -> None:
    """What the system's crypt(3) has proven to compute is checked with it."""
    if SYSTEM is None or scheme not in SYSTEM.schemes:
        pytest.skip(f"the system's crypt(3) does not know {scheme}")
    stored = crypt_r.KNOWN[scheme].decode()
    assert scheme_of(stored) == scheme
    assert SYSTEM_HASHES.verify("password", stored) is Verdict.MATCH
    for wrong in ("Password", "", "password ", "password\0", "password\0x", "\ud800"):
        assert SYSTEM_HASHES.verify(wrong, stored) is Verdict.NO_MATCH


@pytest.mark.parametrize("scheme", [scheme for scheme in crypt_r.KNOWN if scheme != "$y$"])
def test_passlib(scheme: str) -> None:
    """passlib gives the same verdicts."""
    if scheme in PASSLIB_MISSING:
        assert scheme in BCRYPT, "passlib computes $5$ and $6$ by itself"
        pytest.skip("passlib has no bcrypt backend here")
    stored = crypt_r.KNOWN[scheme].decode()
    assert PASSLIB_HASHES.verify("password", stored) is Verdict.MATCH
    for wrong in ("Password", "", "password\0"):
        assert PASSLIB_HASHES.verify(wrong, stored) is Verdict.NO_MATCH


def test_argon2() -> None:
    """argon2 is passlib's, where its backend is installed; elsewhere it is unsupported, not wrong."""
    stored = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$YkYv3bgPsP0T9CVUUoXqc+FeQLFsIXEhKYSFJJN9tco"
    assert scheme_of(stored) == "$argon2"
    hashes = PasswordHashes(SYSTEM)
    missing = hashes.preload(["$argon2"])
    if importlib.util.find_spec("argon2") is None:
        assert missing == ("$argon2",)
        assert hashes.verify("password", stored) is Verdict.UNSUPPORTED
    else:
        from passlib.hash import argon2

        made = argon2.using(rounds=1).hash("password")
        assert missing == ()
        assert hashes.verify("password", made) is Verdict.MATCH
        assert hashes.verify("other", made) is Verdict.NO_MATCH


@pytest.mark.parametrize(
    "stored",
    ["", "x", "*", "!", "$", "$6$", "$6$salt$short", "$2b$10$short", "plain", "$6$a b$" + "x" * 86, "abcdefghijklm"],
)
def test_malformed_hashes_never_match(stored: str) -> None:
    """An empty or malformed hash matches nothing, itself included."""
    for hashes in (SYSTEM_HASHES, PASSLIB_HASHES):
        for password in ("", stored, "x"):
            assert hashes.verify(password, stored) is Verdict.MALFORMED


def test_unknown_schemes() -> None:
    """A scheme that crypt(3) does not know is unsupported; so is every such scheme without crypt(3)."""
    assert SYSTEM_HASHES.verify("x", "$zz9$abcdefghijklmnopqrst") in (Verdict.UNSUPPORTED, Verdict.NO_MATCH)
    assert PASSLIB_HASHES.verify("x", "$zz9$abcdefghijklmnopqrst") is Verdict.UNSUPPORTED
    assert PASSLIB_HASHES.verify("password", crypt_r.KNOWN["$y$"].decode()) is Verdict.UNSUPPORTED


def test_a_library_that_lies_is_not_used() -> None:
    """A scheme counts only when a known answer comes out."""
    assert crypt_r.SystemCrypt(lambda _password, setting: setting[:-1] + b"x").schemes == frozenset()
    assert crypt_r.SystemCrypt(lambda _password, _setting: None).schemes == frozenset()
    assert crypt_r.SystemCrypt(lambda _password, _setting: b"*0").hash(b"x", b"y") is None


def test_without_any_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """No libcrypt, no crypt(3)."""

    def nothing(_name: str | None) -> ctypes.CDLL:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", nothing)
    assert crypt_r.load() is None


def test_threads_do_not_disturb_each_other() -> None:
    """crypt_r has a buffer for each call."""
    wrong: list[object] = []

    def work(scheme: str) -> None:
        stored = crypt_r.KNOWN[scheme].decode()
        wrong.extend(v for _ in range(50) if (v := SYSTEM_HASHES.verify("password", stored)) is not Verdict.MATCH)

    if SYSTEM is None:
        pytest.skip("no crypt(3) here")
    threads = [threading.Thread(target=work, args=(scheme,)) for scheme in ("$5$", "$6$") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_schemes_in_tables() -> None:
    """What tables hold decides what is loaded before confinement."""
    six, yes = crypt_r.KNOWN["$6$"].decode(), crypt_r.KNOWN["$y$"].decode()
    tables = {
        "a": Table("a", "map", {"x": six, "y": "cyrus", "z": "u:" + yes}),
        "b": Table("b", "list", {"$1$abcdefgh$abcdefghijk": ""}),
    }  # fmt: skip
    assert schemes_in(tables) == {"$6$", "$y$"}
    assert stored_hash("user:$6$x") == "$6$x"
    assert scheme_of(DUMMY) == "$6$"


@settings(max_examples=50)
@given(st.text(max_size=40), st.text(max_size=120))
def test_any_texts(password: str, stored: str) -> None:
    """Nothing raises, and rubbish never matches."""
    assert SYSTEM_HASHES.verify(password, stored) is not Verdict.MATCH
