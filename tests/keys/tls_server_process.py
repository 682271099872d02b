"""A TLS server whose private keys are in another process, confined as smtp is. Not a test: tests start it.

usage: tls_server_process.py confined|open KEYS_FD LISTENER_FD NAME CERT_FILE [NAME CERT_FILE ...]

Prints "ready", then echoes what each TLS client sends until the end of its input.
"""

import os
import socket
import sys
from pathlib import Path

from smtpd_ps import osdep
from smtpd_ps.contract.messages import Common
from smtpd_ps.contract.settings import PkiSettings
from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.signer import RemoteSigner
from smtpd_ps.runtime.stream import Stream
from smtpd_ps.runtime.tls import server_pump
from smtpd_ps.runtime.tls_context import PkiError, install_pki, server_context


def note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> None:
    confined, keys_fd, listener_fd, *rest = sys.argv[1:]
    loop = Loop()
    listener = socket.socket(fileno=int(listener_fd))
    pkis = [
        (PkiSettings(name, path, ""), Path(path).read_bytes()) for name, path in zip(rest[::2], rest[1::2], strict=True)
    ]
    signer = RemoteSigner(socket.socket(fileno=int(keys_fd)), Process.SMTP, note)
    try:
        identities = install_pki(pkis, signer)
    except PkiError as error:
        sys.exit(str(error))
    context = server_context(list(identities.values()), "HIGH:!aNULL:!MD5")

    def accept() -> None:
        stream = Stream(loop, listener.accept()[0], lambda data: stream.write(data), note)
        stream.start_tls(server_pump(context), implicit=True)

    loop.read_on(listener.fileno(), accept)
    loop.read_on(0, loop.stop)
    if confined == "confined":
        osdep.confine(Process.SMTP, Common("", os.getuid(), os.getgid(), 0, True, False))
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
