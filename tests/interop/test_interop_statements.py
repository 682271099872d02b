"""One statement at a time: does Debian's `smtpd -n` (6.8) take it, and do we?"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.certs import make_certificate, make_key
from support.daemon import cli

from bench.packages import Packages

BEFORE = 'pki h cert "{dir}/cert" key "{dir}/key"\ntable map {{ a = b }}\ntable list {{ a, b }}\naction "o" relay\n'
AFTER = 'match for any action "o"\n'

AGREED = {
    True: [
        "smtp max-message-size 1.5M", "smtp max-message-size 0", 'smtp sub-addr-delim "-"',
        "bounce warn-interval 1h, 2h",
        'a = ""', 'a = "x"\na = "y"', "table t { a b }", "table t { a, b }", "table t { a = b, c = d }",
        "listen on lo tls pki h", "listen on lo smtps pki h", "listen on lo port submission", "listen on lo inet4",
        "listen on lo tls pki h auth <map>", "listen on lo tls pki h auth { a = b }", "listen on socket tag x",
        'action "a b" relay', "action a maildir user u", "action a lmtp localhost", 'action a lmtp "/s" rcpt-to',
        "action a relay tls no-verify", "action a relay host { a, b }", "action a maildir alias { a = b } ttl 1d",
        "match !from any for any reject", "match ! tls reject", "match from rdns reject", "match from rdns a reject",
        "match for domain { a b } reject", 'match from any for domain "*.x" reject', 'match from src "local" reject',
        "match from src 2001:db8::/32 reject", 'match from src "[::1]" reject', "match from auth <list> reject",
    ],
    False: [
        "queue ttl 0s", "queue ttl 4", 'queue ttl "4 d"', "queue ttl 4w", "bounce warn-interval 1h 2h", "a = 5",
        "smtp max-message-size 10MB", "smtp max-message-size -1", 'smtp sub-addr-delim "+-"', 'smtp sub-addr-delim ""',
        'smtp sub-addr-delim " "', 'smtp sub-addr-delim "@"', 'smtp limit max-rcpt "10"', "smtp limit max-foo 1",
        '"a b" = c', "a = b c", "table t { }", "table t { a, }", "table t { a = b, c }", "table t { 1 }", "table t a",
        "table t { a }\ntable t { b }", 'pki h cert "/x"', 'ca x cert "/nonexistent"', "listen on lo pki h",
        "listen on lo smtps pki h tls", "listen on lo port 0", "listen on lo port 65536", 'listen on lo port "25"',
        "listen on lo port nosuch", "listen on lo auth", "listen on lo tag a tag b", "listen on lo inet4 inet6",
        "listen on nosuch", "listen on socket\nlisten on socket",
        "listen on lo tls pki nosuch", "listen on lo port 25 port 26", "action o relay", "action a bogus",
        "action a mbox user u", "action a maildir user u user v", "action a maildir alias <map> virtual <map>",
        "action a maildir ttl 1d alias <map>", "action a lmtp", "action a relay auth <map>",
        "action a mbox alias <list>",
        "action a relay auth <map> host smtps://l@x", "action a relay tls tls", "action a relay host <map>",
        "match from any", "match action nosuch", "match from any from any for any reject", "match tls tls reject",
        "match for any for any reject", "match tag a tag b for any reject", "match ! reject", "match ! ! tls reject",
        "match from src <nosuch> reject", "match from src <map> reject", "match for domain <map> reject",
        "match helo a helo b reject", "match mail-from a mail-from b reject", 'match reject action "o"',
        'include "/nonexistent"', "include nonexistent", "foo", "match tag 5 reject",
        "match from local from socket reject",
    ],
}  # fmt: skip
# What only we refuse: it could not work, or not as it says (DIFFERENCES.md, "Refused at -n").
STRICTER = [
    "bounce warn-interval 1h, 2h, 3h, 4h, 5h", "smtp limit max-rcpt 0", "mta limit max-conn-per-host 0",
    "scheduler limit max-inflight 0", 'table "" { a }', 'action "" relay', 'listen on lo tag "a b"',
    'listen on lo hostname "a b"', 'action a relay helo "a b"', "listen on lo\nlisten on 127.0.0.1",
    "listen on 127.0.0.1 inet6", "listen on lo tls pki h auth <list>",
    'action a maildir ""', 'action a maildir "%{bad}"', 'action a maildir "../x"',
    'action a lmtp "x:99999"', 'action a relay host "foo://x"', 'action a relay host "smtp://x:99999"',
    'action a relay host "smtp://l@x"', 'action a relay host "smtps://l@x"', 'action a relay host "lmtp://x"',
    "action a relay host smtp+notls://x tls", "action a relay pki nosuch", 'match from src regex "[" reject',
    'match from src "192.0.2.0/33" reject', "match from src host.example reject",
]  # fmt: skip
# 7.8 refuses these (QUIRKS of its parser), or takes them, as we do; 6.8 does the other thing.
SINCE_6_8 = {"listen on lo tls": False, "match mail-from <map> reject": True, "match rcpt-to <map> reject": True,
             "match auth <map> reject": True, "table t {\na }": True}  # fmt: skip


class Site:
    """Debian's unpacked program, and a certificate with its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.smtpd = Packages(folder / "packages").tree("opensmtpd") / "usr/sbin/smtpd"
        key = make_key("rsa")
        (folder / "cert").write_bytes(make_certificate(key))
        (folder / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "key").chmod(0o600)

    def verdicts(self, statement: str) -> tuple[bool, bool, str]:
        """Whether they take it, whether we do, and what both say."""
        file = self.folder / "smtpd.conf"
        file.write_text(f"{BEFORE.format(dir=self.folder)}{statement}\n{AFTER}")
        there = subprocess.run(
            [self.smtpd, "-n", "-f", file],
            capture_output=True,
            text=True,
            env=os.environ | {"LC_ALL": "C"},
            check=False,
        )
        here = cli("smtpd_ps", "-n", "-f", str(file))
        return there.returncode == 0, here.returncode == 0, there.stderr + here.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield Site(tmp_path_factory.mktemp("statements"))


@pytest.mark.parametrize(("taken", "statement"), [(taken, text) for taken, texts in AGREED.items() for text in texts])
def test_agreed(site: Site, taken: bool, statement: str) -> None:
    """Both take it, or both refuse it."""
    there, here, said = site.verdicts(statement)
    assert (there, here) == (taken, taken), said


@pytest.mark.parametrize("statement", STRICTER)
def test_refused_here_only(site: Site, statement: str) -> None:
    """What OpenSMTPD takes and could never do is an error here."""
    there, here, said = site.verdicts(statement)
    assert (there, here) == (True, False), said


@pytest.mark.parametrize(("statement", "taken"), SINCE_6_8.items())
def test_changed_since_6_8(site: Site, statement: str, taken: bool) -> None:
    """We do as 7.8 does, not as 6.8."""
    there, here, said = site.verdicts(statement)
    assert (there, here) == (not taken, taken), said
