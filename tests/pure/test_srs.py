"""SRS addresses: OpenSMTPD's form, both ways, and what forgers and time do to them."""

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.values import SrsSecrets
from smtpd_ps.pure.srs import DAY_SECS, Srs, is_srs

NOW = 1_700_000_000.0
SRS = Srs(SrsSecrets("secret", "", 4))
OTHER = Srs(SrsSecrets("another"))

labels = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789", min_size=1, max_size=12)
locals_ = st.text("abcXYZ0189+=-_.!#", min_size=1, max_size=40).filter(
    lambda text: not text.startswith(".") and not text.endswith(".") and ".." not in text and not is_srs(text + "@")
)
domains = st.builds("{}.{}".format, labels, labels)


def test_the_form_is_opensmtpds() -> None:
    """SRS0=HHHH=TT=domain=user: the hash is that of srs.c, made here from its description."""
    made = SRS.encode("Bob@Example.org", "Fwd.example", NOW)
    day = int(NOW) // DAY_SECS % 1024
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    rest = f"{alphabet[day >> 5]}{alphabet[day & 31]}=Example.org=Bob@fwd.example"
    digest = b64encode(hashlib.sha1(b"secret" + rest.encode()).digest()).decode()
    assert made == f"SRS0={digest[:4]}={rest}"
    assert SRS.decode(made, NOW) == "Bob@Example.org"


@given(local=locals_, domain=domains, first=domains, second=domains, third=domains)
def test_round_trips(local: str, domain: str, first: str, second: str, third: str) -> None:
    """One, two and three forwarders; each reads its own, and the way back ends at the sender."""
    sender = f"{local}@{domain}"
    at_first = SRS.encode(sender, first, NOW)
    at_second = OTHER.encode(at_first, second, NOW)
    at_third = SRS.encode(at_second, third, NOW)
    assert at_first.startswith("SRS0=") and at_second.startswith("SRS1=") and at_third.startswith("SRS1=")
    assert SRS.decode(at_third, NOW) == at_first.rpartition("@")[0] + "@" + first.lower()
    assert OTHER.decode(at_second, NOW) == SRS.decode(at_third, NOW)
    assert SRS.decode(at_first, NOW) == sender
    assert OTHER.decode(at_first, NOW) is None


@given(st.text(max_size=80))
def test_nothing_forged_is_read(text: str) -> None:
    """Any text at all is either read by its hash or refused; none crashes."""
    for prefix in ("", "SRS0=", "srs1=", "SRS0=AAAA=", "SRS1=AAAA=x=="):
        assert SRS.decode(prefix + text, NOW) is None
        SRS.encode(prefix + text, "fwd.example", NOW)


def test_each_part_is_signed() -> None:
    """Changing the day, the domain, the user or our domain leaves nothing to read."""
    made = SRS.encode("bob@example.org", "fwd.example", NOW)
    for old, new in (("bob", "eve"), ("example.org", "example.net"), ("fwd", "bwd"), (made[5], "_"), (made[10], "a")):
        changed = made[:5] + made[5:].replace(old, new, 1)
        assert changed != made
        assert SRS.decode(changed, NOW) is None
    assert SRS.decode(made.replace("fwd.example", "FWD.Example"), NOW) == "bob@example.org"  # a host name has no case


@pytest.mark.parametrize(
    ("days", "good"),
    [(0, True), (4, True), (5, False), (-1, True), (-2, False), (1023, True), (512, False), (1028, True)],
)
def test_they_end(days: int, good: bool) -> None:
    """After the ttl; one day ahead is another's clock. Ten bits come round after 1024 days."""
    made = SRS.encode("bob@example.org", "fwd.example", NOW)
    assert (SRS.decode(made, NOW + days * DAY_SECS) == "bob@example.org") is good
    twice = SRS.encode(made, "second.example", NOW)
    assert (SRS.decode(twice, NOW + days * DAY_SECS) is not None) is good


def test_the_backup_key_is_read_and_not_written() -> None:
    """What the old key made is read; what is made now needs the new one."""
    old = SRS.encode("bob@example.org", "fwd.example", NOW)
    both = Srs(SrsSecrets("new", "secret", 4))
    assert both.decode(old, NOW) == "bob@example.org"
    new = both.encode("bob@example.org", "fwd.example", NOW)
    assert SRS.decode(new, NOW) is None
    assert Srs(SrsSecrets("new", "", 4)).decode(old, NOW) is None


@pytest.mark.parametrize(
    "sender",
    ["", "nobody", "@x", f"{'a' * 250}@example.org", f"a@{'b' * 60}.{'c' * 60}.{'d' * 60}.{'e' * 60}", "SRS1=@x.test"],
)
def test_what_cannot_be_rewritten_stays(sender: str) -> None:
    """No address, or one that would become too long."""
    assert SRS.encode(sender, "fwd.example", NOW) == sender


def test_an_address_of_nobody_is_not_read() -> None:
    """A right hash over something that is no mailbox gives nothing."""
    for rest in ("AA=example.org=@fwd.example", "AA=exa..mple=bob@fwd.example", "AA=bob@fwd.example", "A", "@"):
        digest = b64encode(hashlib.sha1(b"secret" + rest.encode()).digest()).decode()
        day_zero = 1024 * DAY_SECS
        assert SRS.decode(f"SRS0={digest[:4]}={rest}", day_zero) is None
        assert SRS.decode(f"SRS1={digest[:4]}={rest}", day_zero) is None


def test_secrets_are_not_shown() -> None:
    """Not in a traceback or a log line."""
    assert "secret" not in repr(SrsSecrets("secret", "secret"))
