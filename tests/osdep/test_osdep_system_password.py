"""Passwords of system users: shadow and crypt(3), BSD authentication by a fake libc."""

import ctypes
from pathlib import Path

import pytest

from smtpd_ps.osdep import crypt_r, system_password

HASH = "$6$rounds=1000$saltsalt$Z/J9iYO1iE9xnr8JPQL57ZWsVRtVjrUv3CiWc/wKWseqXgSqn3HFYJ/Ng7YXa8XlLj.wpdAwHOJJzuGFqBBRa0"


@pytest.fixture
def shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shadow file with a user of each kind."""
    if crypt_r.load() is None:
        pytest.skip("this system has no crypt(3)")
    path = tmp_path / "shadow"
    path.write_text(f"alice:{HASH}:19000::::::\nempty::19000::::::\nlocked:!{HASH}:1::::::\nstar:*:1::::::\nshort\n")
    real = system_password.shadow_hash
    monkeypatch.setattr(system_password, "shadow_hash", lambda user: real(user, (str(path),)))
    monkeypatch.setattr("sys.platform", "linux")


@pytest.mark.usefixtures("shadow")
@pytest.mark.parametrize(
    ("user", "password", "right"),
    [
        ("alice", "password", True),
        ("alice", "Password", False),
        ("alice", "", False),
        ("alice", "password\0x", False),
        ("empty", "", False),
        ("locked", "password", False),
        ("star", "*", False),
        ("short", "", False),
        ("nobody-here", "password", False),
        ("", "", False),
        ("alice:x", "password", False),
    ],
)
def test_shadow(user: str, password: str, right: bool) -> None:
    """Only a real hash matches: empty, locked and missing ones never do."""
    assert system_password.check(user, password) is right


class FakeLibc:
    def __init__(self, answer: int) -> None:
        self.asked: list[tuple[bytes, bytes | None, bytes, bytes]] = []
        fake = self

        class Okay:
            argtypes: object = None
            restype: object = None

            def __call__(self, user: bytes, style: bytes | None, kind: bytes, password: ctypes.c_char_p) -> int:
                fake.asked.append((user, style, kind, password.value or b""))
                return answer

        self.auth_userokay = Okay()


@pytest.mark.parametrize("answer", [0, 1])
def test_bsd_authentication(answer: int) -> None:
    """OpenBSD's own authentication is asked with the type auth-smtp, and its word counts."""
    libc = FakeLibc(answer)
    assert system_password.bsd_auth("alice", "secret", libc) is bool(answer)  # type: ignore[arg-type]
    assert libc.asked == [(b"alice", None, b"auth-smtp", b"secret")]
