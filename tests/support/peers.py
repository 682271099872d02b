"""The real peers from Debian, each in a scratch directory with a configuration of its own."""

import contextlib
import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.daemon import free_port, wait_until


def answers(kind: int, address: object) -> bool:
    """Whether something listens there."""
    with socket.socket(kind, socket.SOCK_STREAM) as sock:
        sock.settimeout(2)
        try:
            sock.connect(address)
            return sock.recv(10).startswith(b"220")
        except OSError:
            return False


@contextlib.contextmanager
def foreground(argv: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program kept in the foreground, ended by its pid, and with it what is left of its process group."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a server in the middle of a session keeps the port


DOVECOT = """\
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/log
protocols = lmtp
ssl = no
first_valid_uid = 1
mail_location = maildir:{dir}/mail/%u
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={dir}/mail/%u allow_all_users=yes
}}
service lmtp {{
  unix_listener {dir}/lmtp {{
    mode = 0666
  }}
{inet}
}}
"""


class Mailboxes:
    """A mail store reached by LMTP on the Unix socket `lmtp`."""

    def __init__(self, folder: Path, lmtp: Path, pattern: str) -> None:
        self.folder, self.lmtp, self._pattern = folder, lmtp, pattern

    def messages(self) -> list[bytes]:
        """Every message stored, as bytes."""
        return [path.read_bytes() for path in sorted(self.folder.glob(self._pattern)) if path.is_file()]


@contextlib.contextmanager
def dovecot(folder: Path, lmtp_port: int = 0) -> Iterator[Mailboxes]:
    """Dovecot's LMTP server with a Maildir a user (named by address); on 127.0.0.1 too where there is a port."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "mail").mkdir()
    shutil.chown(folder / "mail", "mail", "mail")
    inet = f"  inet_listener lmtp {{\n    address = 127.0.0.1\n    port = {lmtp_port}\n  }}" if lmtp_port else ""
    config = folder / "dovecot.conf"
    config.write_text(DOVECOT.format(dir=folder, inet=inet))
    with foreground(["/usr/sbin/dovecot", "-F", "-c", str(config)], folder / "out"):
        wait_until("dovecot's LMTP", lambda: answers(socket.AF_UNIX, str(folder / "lmtp")))
        yield Mailboxes(folder / "mail", folder / "lmtp", "*/new/*")


IMAPD = """\
configdirectory: {dir}/db
proc_path: {dir}/proc
mboxname_lockpath: {dir}/lock
defaultpartition: default
partition-default: {dir}/spool
altnamespace: yes
unixhierarchysep: yes
admins: cyrus
lmtp_downcase_rcpt: yes
lmtpsocket: {dir}/sock/lmtp
idlesocket: {dir}/sock/idle
notifysocket: {dir}/sock/notify
sievedir: {dir}/sieve
autocreate_post: yes
autocreate_quota: 0
autocreate_users: anyone
duplicatesuppression: no
syslog_prefix: cyrustest
"""
CYRUS = """\
START {{
  recover cmd="ctl_cyrusdb -C {dir}/imapd.conf -r"
}}
SERVICES {{
  lmtpunix cmd="lmtpd -C {dir}/imapd.conf -a" listen="{dir}/sock/lmtp" prefork=1 maxchild=20
}}
EVENTS {{
}}
"""


@contextlib.contextmanager
def cyrus(folder: Path) -> Iterator[Mailboxes]:
    """Cyrus's LMTP server; a mailbox is made at the first message for it."""
    for name in ("db", "spool", "proc", "lock", "sock", "sieve"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "imapd.conf").write_text(IMAPD.format(dir=folder))
    (folder / "cyrus.conf").write_text(CYRUS.format(dir=folder))
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "cyrus", "mail")
    Path("/run/cyrus/proc").mkdir(parents=True, exist_ok=True)
    shutil.chown("/run/cyrus/proc", "cyrus", "mail")
    argv = ["/usr/lib/cyrus/bin/master", "-C", f"{folder}/imapd.conf", "-M", f"{folder}/cyrus.conf"]
    with foreground([*argv, "-p", f"{folder}/pid"], folder / "out"):
        wait_until("cyrus's LMTP", lambda: answers(socket.AF_UNIX, str(folder / "sock/lmtp")))
        yield Mailboxes(folder / "spool", folder / "sock" / "lmtp", "**/[0-9]*.")


MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {dir}/spool
data_directory = {dir}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = {name}
mydestination =
mynetworks = 192.0.2.1/32
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {dir}/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_tls_security_level = may
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_tls_received_header = yes
smtpd_tls_ask_ccert = yes
disable_dns_lookups = yes
"""
MASTER_CF = """\
{address}:25 inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


_PRIVATE = "incoming active bounce corrupt defer deferred flush hold saved trace private"


def _postfix_spool(spool: Path) -> None:
    """The queue directories as `postfix check` would make them."""
    drop = grp.getgrnam("postdrop").gr_gid
    owner = pwd.getpwnam("postfix").pw_uid
    for name in _PRIVATE.split():
        (spool / name).mkdir(mode=0o700)
        os.chown(spool / name, owner, 0)
    for name, uid, group, mode in (
        ("public", owner, drop, 0o710),
        ("maildrop", owner, drop, 0o1730),
        ("pid", 0, 0, 0o755),
    ):
        (spool / name).mkdir()
        os.chown(spool / name, uid, group)
        (spool / name).chmod(mode)


@contextlib.contextmanager
def postfix(
    folder: Path, address: str, domain: str, cert: Path, key: Path, *, main: str = "", services: str = ""
) -> Iterator[Mailboxes]:
    """Postfix as the MX of `domain`, on port 25 of a loopback address of its own.

    `main` and `services` are more lines of main.cf and master.cf; the log is `log` in the folder.
    """
    owner = pwd.getpwnam("mail")
    for name in ("etc", "spool", "data", "mail"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    shutil.chown(folder / "data", "postfix", "postfix")
    shutil.chown(folder / "mail", "mail", "mail")
    _postfix_spool(folder / "spool")
    settings = {
        "dir": folder, "name": f"mx.{domain}", "address": address, "domain": domain,
        "uid": owner.pw_uid, "gid": owner.pw_gid, "cert": cert, "key": key,
    }  # fmt: skip
    (folder / "etc/main.cf").write_text(MAIN_CF.format(**settings) + main)
    (folder / "etc/master.cf").write_text(MASTER_CF.format(address=address) + services)
    with foreground(["/usr/lib/postfix/sbin/master", "-d", "-c", str(folder / "etc")], folder / "out"):
        wait_until("postfix's banner", lambda: answers(socket.AF_INET, (address, 25)))
        yield Mailboxes(folder / "mail", Path("/nonexistent"), "box/new/*")


@contextlib.contextmanager
def dnsmasq(folder: Path, *records: str) -> Iterator[str]:
    """An authoritative name server for .test on loopback; yields "address:port"."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    argv = [
        "/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--port={port}",
        "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts", "--local=/test/",
        "--log-facility=-", "--user=root", "--pid-file", "--local-ttl=60",
        *records,
    ]  # fmt: skip
    with foreground(argv, folder / "dns.log"):

        def listening() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        wait_until("dnsmasq", listening)
        yield f"127.0.0.1:{port}"
