"""smtpd_ps of this checkout, with the very configuration that OpenSMTPD gets."""

import re
import sys
from pathlib import Path

from bench.peer import Peer, Scenario
from bench.peer_opensmtpd import write_configuration
from smtpd_ps import __version__
from smtpd_ps.contract.installation import ACCOUNTS

USERS = tuple(account.name for account in ACCOUNTS)
SEVERAL = "smtp limit processes 2\nmta limit processes 2\n"
RESOLVER = "127.0.0.1:9"  # nobody answers there: the machine's name server is left alone


class SmtpdPs(Peer):
    """Run by the interpreter that runs the benchmark."""

    name = "smtpd_ps"
    variants = ("", "tuned", "several")

    def version(self) -> str:
        """Of this checkout."""
        return f"smtpd_ps {__version__}, Python {sys.version.split()[0]}"

    @property
    def spool(self) -> Path:
        """The state directory, which holds no more than the queue and sockets."""
        return self.run / "state"

    def prepare(self, scenario: Scenario) -> list[str]:
        """See Peer."""
        self.spool.chmod(0o711)
        path = write_configuration(self, scenario)
        if self.several:
            with open(path, "a") as more:
                more.write(SEVERAL)
        return [*_command("smtpd_ps"), "-d", "-f", path, "--state-dir", str(self.spool), "--resolver", RESOLVER]

    def queued(self) -> int:
        """Envelopes; the queue is a database, so it has to be asked."""
        found = re.search(r"^scheduler\.envelope=(\d+)", self._smtpctl("show", "stats"), re.M)
        return int(found[1]) if found else -1

    def flush(self) -> None:
        """As for OpenSMTPD."""
        self._smtpctl("resume", "mta")
        self._smtpctl("schedule", "all")

    def loaded(self, count: int) -> bool:
        """Whether queue counts that many envelopes."""
        return self.queued() >= count

    def _smtpctl(self, *words: str) -> str:
        return self.control(*_command("smtpctl_ps"), "--state-dir", str(self.spool), *words)


def _command(module: str) -> list[str]:
    return [sys.executable, "-I", "-m", f"smtpd_ps.cli.{module}"]
