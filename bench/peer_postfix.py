"""Postfix as Debian builds it, unpacked, nothing chrooted, logging through its own postlogd."""

import os
from pathlib import Path

from bench.peer import DOMAIN, HOSTNAME, PORT, SINK_PORT, Peer, Scenario
from bench.room import MAILBOX_USER

USERS = ("postfix",)
GROUPS = ("postdrop",)

TUNING = {
    "default_process_limit": "1100",
    "in_flow_delay": "0",
    "smtp_destination_concurrency_limit": "20",
    "lmtp_destination_concurrency_limit": "20",
    "initial_destination_concurrency": "20",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_client_connection_rate_limit": "0",
}

# service, private, wakeup, most processes, program: Postfix's own master.cf without chroot.
SERVICES = """
pickup n 60 1 pickup
cleanup n - 0 cleanup
qmgr n 300 1 qmgr
tlsmgr - 1000? 1 tlsmgr
rewrite - - - trivial-rewrite
bounce - - 0 bounce
defer - - 0 bounce
trace - - 0 bounce
verify - - 1 verify
flush n 1000? 0 flush
proxymap - - - proxymap
proxywrite - - 1 proxymap
smtp - - - smtp
relay - - - smtp
showq n - - showq
error - - - error
retry - - - error
discard - - - discard
lmtp - - - lmtp
anvil - - 1 anvil
scache - - 1 scache
"""

PRIVATE_FOLDERS = (
    *("incoming", "active", "bounce", "corrupt", "defer", "deferred"),
    *("flush", "hold", "saved", "trace", "private"),
)


class Postfix(Peer):
    """Debian's package, unpacked."""

    name = "postfix"

    @property
    def tree(self) -> Path:
        """The unpacked package."""
        return self.site.packages.tree("postfix")

    def version(self) -> str:
        """Debian's version."""
        self.tree  # noqa: B018  (downloads)
        return f"Postfix {self.site.packages.version('postfix')}"

    def environment(self) -> dict[str, str]:
        """Where its libraries and its configuration are."""
        return postfix_environment(self.tree) | {"MAIL_CONFIG": str(self.run / "etc")}

    def main_cf(self, scenario: Scenario) -> dict[str, str]:
        """Stock settings but for places and the task; TUNING on top."""
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.spool),
            "command_directory": str(self.tree / "usr/sbin"),
            "daemon_directory": str(self.tree / "usr/lib/postfix/sbin"),
            "data_directory": str(self.run / "data"),
            "shlib_directory": str(self.tree / "usr/lib/postfix"),
            "meta_directory": str(self.run / "etc"),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "import_environment": "MAIL_CONFIG LD_LIBRARY_PATH",
            "export_environment": "MAIL_CONFIG LD_LIBRARY_PATH",
            "maillog_file": str(self.run / "log"),
            "maillog_file_prefixes": str(self.run),
            "myhostname": HOSTNAME,
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "disable_dns_lookups": "yes",
            "message_size_limit": "36700160",
        }
        match scenario.kind:
            case "relay":
                settings["relayhost"] = f"[127.0.0.1]:{SINK_PORT}"
            case "lmtp":
                settings |= {
                    "virtual_mailbox_domains": DOMAIN,
                    "virtual_mailbox_maps": "static:all",
                    "virtual_transport": f"lmtp:unix:{scenario.lmtp_socket}",
                }
            case "maildir":
                settings |= {
                    "virtual_mailbox_domains": DOMAIN,
                    "virtual_mailbox_base": "/",
                    "virtual_mailbox_maps": f"static:{scenario.maildir.lstrip('/')}/",
                    "virtual_uid_maps": f"static:{self.site.accounts.uids[MAILBOX_USER]}",
                    "virtual_gid_maps": f"static:{self.site.accounts.gids[MAILBOX_USER]}",
                    "virtual_minimum_uid": "100",
                    "virtual_mailbox_limit": "0",
                }
            case "filtered":
                raise NotImplementedError("Postfix has milters in place of smtpd-filters(7)")
            case kind:
                raise NotImplementedError(f"no {kind} set up for Postfix (it has SASL from Dovecot or Cyrus)")
        return settings | (TUNING if self.tuned else {})

    def prepare(self, scenario: Scenario) -> list[str]:
        """See Peer."""
        etc, data = self.run / "etc", self.run / "data"
        etc.mkdir(exist_ok=True)
        data.mkdir(exist_ok=True)
        owner, drop = self.site.accounts.uids["postfix"], self.site.accounts.gids["postdrop"]
        os.chown(data, owner, self.site.accounts.gids["postfix"])
        settings = self.main_cf(scenario)
        (etc / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))
        (etc / "master.cf").write_text(master_cf())
        folders = dict.fromkeys(PRIVATE_FOLDERS, (0o700, owner, 0))
        folders |= {"public": (0o710, owner, drop), "maildrop": (0o1730, owner, drop), "pid": (0o755, 0, 0)}
        for name, (mode, uid, gid) in folders.items():
            path = self.spool / name
            path.mkdir(exist_ok=True)
            os.chown(path, uid, gid)
            path.chmod(mode)
        return [str(self.tree / "usr/lib/postfix/sbin/master"), "-d", "-c", str(etc)]

    def queued(self) -> int:
        """Queue files."""
        return sum(
            len(files)
            for folder in ("incoming", "active", "deferred", "maildrop")
            for _path, _dirs, files in os.walk(self.spool / folder)
        )

    def flush(self) -> None:
        """All of it at once."""
        self.control(str(self.tree / "usr/sbin/postqueue"), "-c", str(self.run / "etc"), "-f")

    def loaded(self, count: int) -> bool:
        """It reads its queue bit by bit, and has nothing to load first."""
        return self.queued() >= count


def master_cf() -> str:
    """master.cf with one listener."""
    lines = [f"127.0.0.1:{PORT} inet n - n - - smtpd"]
    for row in SERVICES.split("\n"):
        if row:
            service, private, wakeup, limit, program = row.split()
            lines.append(f"{service} unix {private} - n {wakeup} {limit} {program}")
    lines += ["postlog unix-dgram n - n - 1 postlogd", "virtual unix - n n - - virtual"]
    return "\n".join(lines) + "\n"


def postfix_environment(tree: Path) -> dict[str, str]:
    """For any program of the unpacked package."""
    return os.environ | {"LD_LIBRARY_PATH": str(tree / "usr/lib/postfix")}
