"""filter-dkim, filter-auth and table-sqlite in the real daemon, as their own users."""

import importlib.util
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from support.auth_corpus import PEM, RSA, Zone, rsa_record
from support.daemon import Daemon, wait_until
from support.name_server import NameServer
from support.sink import sinking
from support.users import ensure_daemon_users

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="needs root: programs run as users of their own")
CONFIG = """
admd here.example
table domains sqlite:{dir}/sqlite.conf
filter checked proc-exec "{dir}/libexec/filter-auth -r --resolver NAMES"
filter sign proc-exec "{dir}/libexec/filter-dkim -d example.org -s s -k {dir}/key"
listen on 127.0.0.1 port {port} filter checked
listen on 127.0.0.1 port {port2} filter sign
action out relay host "smtp://127.0.0.1:SINK"
match from any for domain <domains> action out
"""
ZONE: Zone = {
    ("example.org", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"],
    ("_dmarc.example.org", "TXT"): ["v=DMARC1; p=reject"],
    ("s._domainkey.example.org", "TXT"): [rsa_record()],
    ("elsewhere.example", "TXT"): ["v=spf1 -all"],
    ("_dmarc.elsewhere.example", "TXT"): ["v=DMARC1; p=reject"],
}
MESSAGE = b"From: anna@example.org\r\nTo: b@ours.test\r\nSubject: x\r\n\r\nbody\r\n.dot\r\n\r\n\r\n"
PACKAGES = ("dkim", "dns", "publicsuffixlist", "smtpd_ps")


def system_python() -> str:
    """An interpreter that the programs' users can run too."""
    for path in (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3"):
        real = Path(path).resolve()
        if real.exists() and all(parent.stat().st_mode & 0o001 for parent in real.parents):
            return path
    pytest.skip("no Python here that other users can run")


def install(folder: Path) -> None:
    """The programs with what they import, where those users can read it: the tests' own may lie in somebody's home."""
    site = folder / "site"
    site.mkdir()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    libexec = folder / "libexec"
    libexec.mkdir()
    for name in ("filter-auth", "filter-dkim", "table-sqlite"):
        path = libexec / name
        module = f"smtpd_ps.programs.{name.replace('-', '_')}"
        path.write_text(
            f"#!{system_python()} -IB\nimport sys\nsys.path.insert(0, {str(site)!r})\n"
            f"from {module} import main\nsys.exit(main())\n"
        )
        path.chmod(0o755)


def test_signed_and_verified() -> None:
    """What filter-dkim signs is valid, and passes filter-auth, which refuses what policies want refused."""
    ensure_daemon_users()
    names = NameServer(ZONE)
    with sinking() as sink:
        config = CONFIG.replace("NAMES", names.address).replace("SINK", str(sink.port))
        daemon = Daemon(
            config.replace("sqlite:", '"proc-exec:{dir}/libexec/table-sqlite ').replace(".conf\n", '.conf"\n', 1)
        )
        install(daemon.dir)
        made = sqlite3.connect(daemon.dir / "domains.db")
        made.executescript("CREATE TABLE domains (domain TEXT); INSERT INTO domains VALUES ('ours.test');")
        made.close()
        (daemon.dir / "sqlite.conf").write_text(
            f"dbpath {daemon.dir}/domains.db\nquery_domain SELECT 1 FROM domains WHERE domain = ?\n"
        )
        key = daemon.dir / "key"
        key.write_bytes(PEM)
        key.chmod(0o400)
        shutil.chown(key, "_sps_filter")
        try:
            daemon.start(wait=False)
            for port in (daemon.port, daemon.port2):
                wait_until("both listeners serve", lambda port=port: greets(daemon, port))
            with daemon.smtp(daemon.port2) as client:
                client.sendmail("anna@example.org", ["b@ours.test"], MESSAGE)
            daemon.wait_empty()
            signed = sink.mails[-1].data
            assert dkim.verify(signed, dnsfunc=lambda name, timeout=5: rsa_record().encode())
            signed = signed[signed.index(b"DKIM-Signature:") :]
            forged = b"Authentication-Results: here.example; dmarc=pass header.from=bank.example\r\n"
            with daemon.smtp() as client:
                client.sendmail("anna@example.org", ["b@ours.test"], forged + signed)
                code, text = refusal(client, MESSAGE.replace(b"example.org", b"elsewhere.example"))
                assert (code, text) == (550, b"5.7.26 Refused by the DMARC policy of elsewhere.example")
                code, _text = client.rcpt("x@other.test") if client.mail("a@example.org")[0] == 250 else (0, b"")
                assert code == 550
            daemon.wait_empty()
            lines = sink.mails[-1].data.split(b"\r\n")
            at = lines.index(b"Authentication-Results: here.example;")
            assert lines[at + 1] == b"\tspf=pass smtp.mailfrom=example.org;"
            assert lines[at + 2].startswith(b"\tdkim=pass header.d=example.org header.s=s ")
            assert lines[at + 3] == b"\tdmarc=pass (p=reject) header.from=example.org"
            assert not any(b"bank.example" in line for line in lines)
            assert len(sink.mails) == 2
            assert daemon.stop() == 0, daemon.log[-4000:]
            assert "Traceback" not in daemon.log, daemon.log[-8000:]
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()
            names.stop()


def greets(daemon: Daemon, port: int) -> bool:
    """Whether the listener and its filter serve."""
    try:
        with daemon.smtp(port) as client:
            return client.ehlo()[0] == 250
    except OSError:
        return False


def refusal(client, message: bytes) -> tuple[int, bytes]:  # type: ignore[no-untyped-def]
    """What the server says to a message of elsewhere.example."""
    client.mail("a@elsewhere.example")
    client.rcpt("b@ours.test")
    return client.data(message)  # type: ignore[no-any-return]


def test_a_key_that_lies_open_stops_the_filter() -> None:
    """It says so in the log, and mail through it is refused for the time being; other listeners serve."""
    ensure_daemon_users()
    with sinking() as sink:
        config = "\n".join(line for line in CONFIG.splitlines() if "checked" not in line and "table" not in line)
        config = config.replace("<domains>", '"ours.test"').replace("SINK", str(sink.port))
        daemon = Daemon(config + "\nlisten on 127.0.0.1 port {port}\n")
        install(daemon.dir)
        key = daemon.dir / "key"
        key.write_bytes(RSA.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption()))  # fmt: skip
        key.chmod(0o444)
        shutil.chown(key, "_sps_filter")
        try:
            daemon.start()
            wait_until("it says why", lambda: "others than its owner can read it" in daemon.log)
            with daemon.smtp() as client:
                client.sendmail("anna@example.org", ["b@ours.test"], MESSAGE)
            daemon.wait_empty()
            assert len(sink.mails) == 1
            assert daemon.stop() == 0
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()
