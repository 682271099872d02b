"""`auth` without a table: the system's own users, whose passwords only root can check."""

import base64
import os
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, running

USER = "spsauth"
SECRET = "Pass wörd|9"
CONFIG = """
pki mxkey cert "PLACE/live/fullchain.pem"
pki mxkey key "PLACE/live/privkey.pem"
listen on 127.0.0.1 port {port} hostname mx.test
listen on 127.0.0.1 port {port2} tls-require pki mxkey hostname mx.test auth
action out relay host "smtp://127.0.0.1:9"
match auth from any for any action out
"""


@pytest.fixture
def user() -> Iterator[str]:
    if os.getuid() != 0 or not Path("/etc/shadow").exists():
        pytest.skip("needs root and a system with shadow(5)")
    subprocess.run(["userdel", USER], capture_output=True, check=False)
    hashed = cli("smtpctl_ps", "encrypt", SECRET).stdout.strip()
    subprocess.run(["useradd", "-r", "-M", "-s", "/usr/sbin/nologin", "-p", hashed, USER], check=True)
    try:
        yield USER
    finally:
        subprocess.run(["userdel", USER], check=True)


def login(daemon: Daemon, user: str, password: str) -> int:
    """The reply to AUTH PLAIN."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with daemon.smtp(daemon.port2) as client:
        client.starttls(context=context)
        client.ehlo()
        plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        return client.docmd("AUTH", f"PLAIN {plain}")[0]


def test_a_user_of_the_system_logs_in(user: str, tmp_path: Path) -> None:
    """With the right password, and may then relay; nobody else does, and no log has the password."""
    write_acme(tmp_path, make_key("ecdsa"))
    with running(CONFIG.replace("PLACE", str(tmp_path))) as daemon:
        assert login(daemon, user, SECRET) == 235
        assert login(daemon, user, SECRET.lower()) == 535
        assert login(daemon, "root", "root") == 535
        assert login(daemon, "no such user", SECRET) == 535
        subprocess.run(["passwd", "-q", "-l", user], check=True)
        assert login(daemon, user, SECRET) == 535, "the account is locked"
        with daemon.smtp(daemon.port2) as client, pytest.raises(smtplib.SMTPException):
            client.sendmail("a@client.test", ["b@far.test"], "Subject: x\r\n\r\nbody\r\n")
        assert SECRET not in daemon.log and SECRET.split("|")[0] not in daemon.log
        daemon.ctl("audit")
