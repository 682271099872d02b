"""`make demo`: the whole server on this machine for a moment, one mail through it, and all removed again.

Runs as the person who tries it out: as root with real separation of users, otherwise in the marked
unprivileged mode. Says what it will make before it makes it. Parses nothing of strangers.
"""

import contextlib
import datetime
import grp
import ipaddress
import os
import pwd
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from smtpd_ps.cli.accounts import SetupError, group_command, run_command, user_command
from smtpd_ps.cli.encrypt import hash_password
from smtpd_ps.contract.installation import ACCOUNTS, Account

MAIL_USER = Account("_sps_demo", "smtpd_ps demonstration")
ADDRESS = "anna@demo.example"
LOGIN, PASSWORD = "anna", "a password of the demonstration"
PATIENCE_SECS = 30.0

_T = TypeVar("_T")

CONFIGURATION = """\
table people {{ "{address}" = "{user}" }}
table submitters "{home}/submitters"

pki demo cert "{home}/demo.crt"
pki demo key "{home}/demo.key"

listen on 127.0.0.1 port {port} tls-require pki demo auth <submitters>

action "inbox" maildir "{home}/mail/Maildir" virtual <people>
match auth from any for domain demo.example action "inbox"
"""

MESSAGE = """\
From: Anna <anna@demo.example>
To: Anna <anna@demo.example>
Subject: Hello from the demonstration

It went in by an authenticated STARTTLS submission and came out in a Maildir.
"""


class DemoError(Exception):
    """A step did not do what it should."""


@dataclass
class Demo:
    """One demonstration in `home`; `made_users` are those that it has to remove."""

    home: Path
    privileged: bool
    port: int
    made_users: list[str] = field(default_factory=list)
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> str:
        """The daemon's state directory."""
        return str(self.home / "state")

    @property
    def maildir(self) -> Path:
        """Where the mail arrives."""
        return self.home / "mail" / "Maildir"

    @property
    def mail_user(self) -> str:
        """Whose mail it is."""
        return MAIL_USER.name if self.privileged else pwd.getpwuid(os.getuid()).pw_name

    def run(self) -> None:
        """All steps. Raises DemoError and what the steps raise."""
        say("1. users, a certificate and a configuration")
        if self.privileged:
            self.make_users()
        self.write_files()
        print(self.configuration)
        say("2. the daemon")
        self.start()
        self.show_processes()
        say(f"3. an authenticated submission with STARTTLS to 127.0.0.1 port {self.port}")
        self.submit()
        say(f"4. its delivery into {self.maildir}")
        print(wait_for(self.delivered, "the mail in the Maildir").decode())
        say("5. smtpctl_ps show queue: nothing is left in it")
        wait_for(lambda: self.control("show", "queue") == "", "an empty queue")
        print("(empty)")
        say("6. smtpctl_ps audit: every process is confined as its policy says")
        print(self.control("audit"))
        say("7. the end")
        print(self.control("stop") or "stopping")
        self.wait_for_end()

    def make_users(self) -> None:
        """The daemon's users where they are missing, and one who gets mail."""
        for account in (*ACCOUNTS, MAIL_USER):
            with contextlib.suppress(KeyError):
                pwd.getpwnam(account.name)
                continue
            self.made_users.append(account.name)
            if account.name not in {group.gr_name for group in grp.getgrall()}:
                run_command(group_command(account, sys.platform))
            run_command(user_command(account, sys.platform))
            print(f"user {account.name}")

    @property
    def configuration(self) -> str:
        """The smtpd.conf."""
        return CONFIGURATION.format(address=ADDRESS, user=self.mail_user, home=self.home, port=self.port)

    def write_files(self) -> None:
        """Configuration, passwords, certificate, key, and the directory that mail arrives in."""
        (self.home / "smtpd.conf").write_text(self.configuration)
        (self.home / "submitters").write_text(f"{LOGIN} {hash_password(PASSWORD)}\n")
        certificate, key = self_signed()
        (self.home / "demo.crt").write_bytes(certificate)
        (self.home / "demo.key").touch(0o600)
        (self.home / "demo.key").write_bytes(key)
        self.maildir.parent.mkdir(0o700)
        if self.privileged:
            user = pwd.getpwnam(self.mail_user)
            os.chown(self.maildir.parent, user.pw_uid, user.pw_gid)
            print(self.control("setup"))

    def start(self) -> None:
        """Start the daemon in the foreground and wait until it answers."""
        mode = [] if self.privileged else ["--unprivileged"]
        with (self.home / "log").open("wb") as log:
            self.daemon = subprocess.Popen(  # noqa: S603 - our own command and paths
                [*command("smtpd_ps"), "-d", "-f", str(self.home / "smtpd.conf"), "--state-dir", self.state, *mode],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(self.answers, "the daemon to listen")

    def answers(self) -> bool:
        """Whether the port greets. Raises DemoError when the daemon has ended."""
        if self.daemon is None or self.daemon.poll() is not None:
            raise DemoError("the daemon has ended")
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as sock:
                greeted = sock.recv(512).startswith(b"220")
                sock.sendall(b"QUIT\r\n")
                return greeted
        except OSError:
            return False

    def show_processes(self) -> None:
        """The process table, with users."""
        assert self.daemon is not None
        print(f"{'PID':>8}  {'USER':<14} COMMAND")
        for pid, user, title in processes(self.daemon.pid):
            print(f"{pid:>8}  {user:<14} {title}")

    def submit(self) -> None:
        """Send the message as a mail program would."""
        context = ssl.create_default_context(cafile=str(self.home / "demo.crt"))
        with smtplib.SMTP("localhost", self.port, local_hostname="laptop.demo.example", timeout=20) as client:
            client.starttls(context=context)
            assert isinstance(client.sock, ssl.SSLSocket)
            print(f"TLS: {client.sock.version()}, certificate verified")
            code, _text = client.login(LOGIN, PASSWORD)
            print(f"AUTH: {code}")
            refused = client.sendmail(ADDRESS, [ADDRESS], MESSAGE)
            print("DATA: 250, refused recipients: none" if not refused else f"refused: {refused}")

    def delivered(self) -> bytes:
        """The mail, or nothing yet."""
        new = self.maildir / "new"
        found = sorted(new.iterdir()) if new.is_dir() else []
        return found[0].read_bytes() if found else b""

    def control(self, *words: str) -> str:
        """What `smtpctl_ps` prints. Raises DemoError when it fails."""
        done = subprocess.run(  # noqa: S603 - our own command and words
            [*command("smtpctl_ps"), "--state-dir", self.state, *words],
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise DemoError(f"smtpctl_ps {' '.join(words)} ended {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout.rstrip("\n")

    def wait_for_end(self) -> None:
        """The daemon ends by itself, with 0."""
        assert self.daemon is not None
        try:
            code = self.daemon.wait(PATIENCE_SECS)
        except subprocess.TimeoutExpired:
            raise DemoError("the daemon does not stop") from None
        if code:
            raise DemoError(f"the daemon ended with {code}")

    def remove(self) -> None:
        """Everything that was made."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(PATIENCE_SECS)
            self.daemon.kill()
        for name in reversed(self.made_users):
            remove_user(name)
        shutil.rmtree(self.home)


def say(text: str) -> None:
    """The title of a step."""
    print(f"\n== {text}", flush=True)


def command(name: str) -> list[str]:
    """How to run one of our commands with this very Python."""
    return [sys.executable, "-I", "-m", f"smtpd_ps.cli.{name}"]


def wait_for(ready: Callable[[], _T], what: str) -> _T:
    """Ask until the answer is true. Raises DemoError when that takes too long."""
    deadline = time.monotonic() + PATIENCE_SECS
    while time.monotonic() < deadline:
        answer = ready()
        if answer:
            return answer
        time.sleep(0.05)
    raise DemoError(f"waited in vain for {what}")


def processes(parent: int) -> Iterator[tuple[int, str, str]]:
    """Pid, user and title of `parent` and its children."""
    if not Path("/proc/self/stat").exists():  # a BSD without procfs
        listed = subprocess.run(["/bin/ps", "-axo", "pid=,ppid=,user=,command="], capture_output=True, check=True)
        for line in listed.stdout.decode().splitlines():
            number, above, user, title = line.split(None, 3)
            if parent in (int(number), int(above)):
                yield int(number), user, title
        return
    for entry in sorted((path for path in Path("/proc").iterdir() if path.name.isdigit()), key=lambda p: int(p.name)):
        with contextlib.suppress(OSError):  # it may end while we look
            pid = int(entry.name)
            ppid = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in (pid, ppid):
                uid = next(line for line in (entry / "status").read_text().splitlines() if line.startswith("Uid:"))
                title = (entry / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
                yield pid, pwd.getpwuid(int(uid.split()[1])).pw_name, title


def self_signed() -> tuple[bytes, bytes]:
    """Certificate and key for localhost, PEM, for one day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def remove_user(name: str) -> None:
    """Remove a user that we made, and the group of the same name."""
    remover = ["pw"] if sys.platform.startswith("freebsd") else []
    try:
        run_command([*remover, "userdel", name])
        if name in {group.gr_name for group in grp.getgrall()}:
            run_command([*remover, "groupdel", name])
    except SetupError as error:
        print(f"user {name} could not be removed: {error}", file=sys.stderr)


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def announce(demo: Demo) -> None:
    """Say what will be made."""
    print("This demonstration runs smtpd_ps on this machine, sends one mail through it, and cleans up. It makes")
    print(f"  - the directory {demo.home} (configuration, self-signed certificate, spool, one Maildir)")
    if demo.privileged:
        missing = [a.name for a in (*ACCOUNTS, MAIL_USER) if a.name not in {user.pw_name for user in pwd.getpwall()}]
        print(f"  - the system users {', '.join(missing) or '(none: they are here already)'}")
    else:
        print("  - no users: without root it runs in the unprivileged mode, where all processes are yours")
    print(f"  - a daemon that listens on 127.0.0.1 port {demo.port} (standing in for submission, 587)")
    print("and removes all of it again, also when something fails.")


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """The command: 0 when all steps went well, else 1 with the daemon's log."""
    privileged = os.getuid() == 0
    signal.signal(signal.SIGTERM, _terminated)
    os.umask(0o022)
    home = Path(tempfile.mkdtemp(prefix="smtpd_ps-demo-"))
    home.chmod(0o755 if privileged else 0o700)
    demo = Demo(home, privileged, free_port())
    status = 1
    try:
        announce(demo)
        demo.run()
        status = 0
    except (DemoError, SetupError, OSError, smtplib.SMTPException, KeyboardInterrupt) as error:
        print(f"\nThe demonstration failed: {error or 'interrupted'}", file=sys.stderr)
        log = home / "log"
        if log.exists():
            print(f"The daemon's log:\n{log.read_text(errors='replace')}", file=sys.stderr)
    finally:
        demo.remove()
        print("everything that was made has been removed", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
