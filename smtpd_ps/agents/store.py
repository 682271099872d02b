"""`python -I -m smtpd_ps.agents.store maildir [-j] PATH | file PATH`: the message on standard input, stored.

Started by a wrapper of smtpd.conf in the place of %{mda}, as the mail user; what OpenSMTPD's
mail.maildir(8) and mail.mboxfile(8) do for its wrappers. The input is a stranger's message that a
wrapper may have changed; it is LF text that begins with our header lines. Exit status: sysexits(3).
"""

import os
import socket
import sys
import time

from smtpd_ps.agents.bodies import CHUNK_BYTES, Item, write_all
from smtpd_ps.agents.commands import scratch_file
from smtpd_ps.agents.file_target import append
from smtpd_ps.agents.maildir import Maildir
from smtpd_ps.contract.messages import AgentJobFile
from smtpd_ps.contract.settings import AgentSettings
from smtpd_ps.contract.values import Status
from smtpd_ps.pure.maildir_name import MaildirNames
from smtpd_ps.pure.mda_result import EX_TEMPFAIL

EX_USAGE = 64


class _AsGiven(Item):
    """The message as the wrapper wrote it: our header lines are in it already."""

    @property
    def headers(self) -> bytes:
        return b""


def main(argv: list[str]) -> int:
    """Store the message; the exit status."""
    match argv:
        case ["maildir", "-j", path] | ["maildir", path]:
            pass
        case ["file", path]:
            pass
        case _:
            sys.stderr.write("usage: store maildir [-j] PATH | file PATH\n")
            return EX_USAGE
    if not os.geteuid():
        sys.stderr.write("may not be executed as root\n")
        return EX_USAGE
    try:
        fd = scratch_file()
        size_bytes = 0
        while chunk := os.read(0, CHUNK_BYTES):
            write_all(fd, chunk)
            size_bytes += len(chunk)
    except OSError as error:
        sys.stderr.write(f"{os.strerror(error.errno or 0)}\n")
        return EX_TEMPFAIL
    item = _AsGiven(AgentJobFile(0, os.environ.get("SENDER", ""), "", "", size_bytes), fd)
    if argv[0] == "file":
        verdict = append(path, item)
        status, text = verdict.status, verdict.text
    else:
        host = socket.gethostname()
        settings = AgentSettings(
            "",
            os.environ.get("HOME", "/"),
            "",
            "maildir",
            path.replace("%", "%%"),
            host,
            maildir_junk="-j" in argv[1:-1],
        )
        (result,) = Maildir(settings, MaildirNames(os.getpid(), host), time.time_ns).store([item])
        status, text = Status(result.status), result.text
    if status is not Status.OK:
        sys.stderr.write(f"{text}\n")
    return {Status.OK: 0, Status.TEMPFAIL: EX_TEMPFAIL}.get(status, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
