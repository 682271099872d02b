"""OpenSMTPD as Debian builds it. Its paths are fixed, so they are mounted over in its room."""

import contextlib
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from bench import noop_filter
from bench.peer import DOMAIN, HOSTNAME, PORT, SINK_PORT, Peer, Scenario
from bench.room import MAILBOX_USER

USERS = ("opensmtpd", "opensmtpq")
# One that a user without rights can run: that of the benchmark may lie in somebody's home.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable

# Its defaults are meant to be gentle to others' servers; these are meant for a smarthost of one's own.
TUNING = (
    "smtp limit max-mails 100000",
    "mta limit max-conn-per-host 20 max-conn-per-route 20 max-conn-per-relay 20 conn-delay-route 0"
    " conn-delay-relay 0 reconn-delay-route 0 session-mail-max 1000 task-hiwat 500 task-lowat 200 task-release 200",
    "mda limit max-session-per-user 20",
    "scheduler limit max-inflight 20000",
)


def configuration(scenario: Scenario, tuned: bool) -> str:
    """smtpd.conf for OpenSMTPD and, word for word the same, for smtpd_ps."""
    lines = list(TUNING) if tuned else []
    lines.append(f'table users {{ "@" = "{MAILBOX_USER}" }}')
    listen = f"listen on 127.0.0.1 port {PORT} hostname {HOSTNAME}"
    relay = f'action out relay host "smtp://127.0.0.1:{SINK_PORT}"'
    match scenario.kind:
        case "relay":
            lines += [listen, relay, "match from any for any action out"]
        case "filtered":
            lines += [f'filter passing proc-exec "{scenario.program}"', f"{listen} filter passing", relay]
            lines += ["match from any for any action out"]
        case "lmtp":
            lines += [listen, f'action out lmtp "{scenario.lmtp_socket}" rcpt-to virtual <users>']
            lines += [f'match from any for domain "{DOMAIN}" action out']
        case "maildir":
            lines += [listen, f'action out maildir "{scenario.maildir}" virtual <users>']
            lines += [f'match from any for domain "{DOMAIN}" action out']
        case "submission":
            lines += [f'pki {HOSTNAME} cert "{scenario.cert}"', f'pki {HOSTNAME} key "{scenario.key}"']
            lines += [f"table credentials file:{scenario.credentials}"]
            lines += [f"{listen} tls-require pki {HOSTNAME} auth <credentials>", relay]
            lines += ["match auth from any for any action out"]
        case kind:
            raise ValueError(kind)
    return "\n".join(lines) + "\n"


def write_configuration(peer: Peer, scenario: Scenario) -> str:
    """Write it into the folder of the run; its path."""
    if scenario.kind == "filtered":
        program = peer.run / "noop_filter.py"
        shutil.copyfile(noop_filter.__file__, program)
        program.chmod(0o644)
        scenario = replace(scenario, program=f"{PYTHON} -IS {program}")
    path = peer.run / "smtpd.conf"
    path.write_text(configuration(scenario, peer.tuned))
    path.chmod(0o644)
    return str(path)


class OpenSMTPD(Peer):
    """Debian's package, unpacked."""

    name = "opensmtpd"

    @property
    def tree(self) -> Path:
        """The unpacked package."""
        return self.site.packages.tree("opensmtpd")

    def version(self) -> str:
        """Debian's version."""
        self.tree  # noqa: B018  (downloads)
        return f"OpenSMTPD {self.site.packages.version('opensmtpd')}"

    def mounts(self) -> list[tuple[Path, Path]]:
        """An empty /run, its own spool, its delivery agents and its empty folder."""
        run = self.run / "var-run"
        run.mkdir(exist_ok=True)
        return [
            (run, Path("/run")),
            (self.spool, Path("/var/spool")),
            (self.tree / "usr/libexec", Path("/usr/libexec")),
            (self.tree / "var/lib", Path("/var/lib")),
        ]

    def prepare(self, scenario: Scenario) -> list[str]:
        """See Peer."""
        if scenario.kind == "submission" and self.site.packages.version("opensmtpd").startswith("6.8"):
            raise NotImplementedError("OpenSMTPD 6.8 on OpenSSL 3 fails every TLS handshake, with RSA and with ECDSA")
        return [str(self.tree / "usr/sbin/smtpd"), "-d", "-f", write_configuration(self, scenario)]

    def queued(self) -> int:
        """Message folders in the spool."""
        return sum(1 for _ in (self.spool / "smtpd/queue").glob("??/????????"))

    def flush(self) -> None:
        """A relay that did not answer is held, so it has to be resumed as well."""
        with contextlib.suppress(RuntimeError):  # it says that the command failed where nothing was held
            self._smtpctl("resume", "mta")
        self._smtpctl("schedule", "all")

    def loaded(self, count: int) -> bool:
        """Whether the scheduler holds that many envelopes."""
        found = re.search(r"^scheduler\.envelope=(\d+)", self._smtpctl("show", "stats"), re.M)
        return bool(found) and int(found[1]) >= count if found else False

    def _smtpctl(self, *words: str) -> str:
        # It wants to be installed with the set-group-id bit, and believes that it is when it has the group.
        group = str(self.site.accounts.gids["opensmtpq"])
        return self.control("setpriv", "--regid", group, "--clear-groups", str(self.tree / "usr/sbin/smtpctl"), *words)

    def environment(self) -> dict[str, str]:
        """Without what could change its behaviour."""
        return {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}
