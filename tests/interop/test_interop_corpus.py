"""`smtpd -n` of Debian's OpenSMTPD 6.8 and ours on the same files: tests/config/corpus.

Interfaces become addresses of this host and paths lead into a scratch directory that has what the
files name. DIFFERENCES.md explains the disagreements.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.certs import make_certificate, make_key
from support.daemon import cli

from bench.packages import Packages

CORPUS = sorted((Path(__file__).parents[1] / "config/corpus").glob("*.conf"))
PLACES = {"lo0": "127.0.0.1", "eth0": "127.0.0.2", "if0": "127.0.0.3", "egress": "127.0.0.4"}
LISTEN = re.compile(rf"listen on ({'|'.join(PLACES)})\b")
PATH = re.compile(r"/etc/(?:mail/|ssl/|aliases)[\w./-]*")
TABLES = {
    "aliases": "root: anna\n",
    "badnets": "192.0.2.0/24\n",
    "credentials": "anna $2b$10$abc\n",
    "logins": "anna $2b$10$abc\n",
    "secrets": "home user:password\nme user:password\n",
    "sqlite.conf": "dbpath /nonexistent\n",
    "transport": "example.org smtp://h.example\n",
    "userinfo": "anna 1000:1000:/home/anna\n",
    "virtuals": "a@example.org b\n",
    "host.conf": """\
fqdn = "mail.example.org"
ext_if = "127.0.0.5"
domains = "{ example.org, example.net }"
pki $fqdn cert "/etc/ssl/mail.pem" key "/etc/ssl/private/mail.key"
""",
}
# What 7.8 takes and 6.8 does not know; every one stands in DIFFERENCES.md.
NOT_IN_6_8 = {
    "submission-inline-users": "line ends after { and before }",
    "tls-tuning": "relay ... protocols",
}
# Programs and users that are not on this machine: an error here, while OpenSMTPD finds out when it starts them.
NOT_INSTALLED = {"filter-chain", "filter-dkim"}
NOT_COMPARED = {
    "db-aliases": "the makemap of the package makes its file only where it is installed setgid",
    "sqlite-tables": "Debian has this kind of table in a package of its own",
}


class Site:
    """The scratch directory and Debian's unpacked program."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        tree = Packages(scratch / "packages").tree("opensmtpd")
        self.smtpd = tree / "usr/sbin/smtpd"
        key = make_key("rsa")
        self.cert = make_certificate(key, "mail.example.org")
        self.key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def prepare(self, text: str) -> str:
        """The text with paths and places of this host; makes the files that it names."""
        text = LISTEN.sub(lambda found: f"listen on {PLACES[found[1]]}", text)
        return PATH.sub(lambda found: str(self._file(found[0])), text)

    def _file(self, path: str) -> Path:
        file = self.scratch / path.strip("/").replace("/", "_")
        if file.exists():
            return file
        if path.endswith(".pem"):
            file.write_bytes(self.cert)
        elif path.endswith(".key"):
            file.write_bytes(self.key)
        else:
            file.write_text(self.prepare(TABLES[Path(path).name]))
        file.chmod(0o600)
        return file


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield Site(tmp_path_factory.mktemp("corpus"))


def verdicts(site: Site, path: Path) -> tuple[bool, str, bool, str]:
    """Whether Debian's takes the file and what it says, whether ours does and what it says."""
    file = site.scratch / path.name
    file.write_text(site.prepare(path.read_text()))
    environment = os.environ | {"LC_ALL": "C"}
    theirs = subprocess.run(
        [site.smtpd, "-n", "-f", file], capture_output=True, text=True, env=environment, check=False
    )
    ours = cli("smtpd_ps", "-n", "-f", str(file))
    return theirs.returncode == 0, theirs.stderr, ours.returncode == 0, ours.stderr


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_both_take_or_refuse(site: Site, path: Path) -> None:
    """Both take it or both refuse it, but for what we do not support yet and what 6.8 does not know."""
    if path.stem in NOT_COMPARED:
        pytest.skip(NOT_COMPARED[path.stem])
    taken_there, said_there, taken, said = verdicts(site, path)
    wanted = path.read_text().splitlines()[0].removeprefix("# expect: ")
    if wanted == "error":
        assert not taken_there, said_there
        assert not taken, said
        return
    assert taken_there == (path.stem not in NOT_IN_6_8), said_there
    if path.stem in NOT_INSTALLED and not taken:
        errors = [line for line in said.splitlines() if ": warning: " not in line]
        assert errors and all(re.search(r": proc .* (is in none of|there is no user) ", line) for line in errors), said
        return
    assert taken == (wanted == "ok"), said
    if not taken:
        errors = [line for line in said.splitlines() if ": warning: " not in line]
        assert errors
        assert all(line.endswith(" is not supported yet") for line in errors), said
