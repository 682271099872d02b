"""A filter program for measurements: asked in every phase and given every line, it lets all of it through.

Run by a server's own user with whatever Python the machine has; nothing of this checkout is imported.
"""

import os

PHASES = (
    "connect", "helo", "ehlo", "starttls", "auth", "mail-from", "rcpt-to", "data", "data-line", "rset", "quit", "noop",
    "commit",
)  # fmt: skip
CONFIGURED = b"config|ready\n"
REGISTERED = "".join(f"register|filter|smtp-in|{phase}\n" for phase in PHASES).encode() + b"register|ready\n"


def answers(lines: list[bytes]) -> bytes:
    """What to write for whole lines that were read."""
    out = []
    for line in lines:
        fields = line.split(b"|", 7)
        if fields[0] != b"filter":
            if line + b"\n" == CONFIGURED:
                out.append(REGISTERED[:-1])
        elif fields[4] == b"data-line":
            out.append(b"filter-dataline|%b|%b|%b" % (fields[5], fields[6], fields[7]))
        else:
            out.append(b"filter-result|%b|%b|proceed" % (fields[5], fields[6]))
    return b"\n".join([*out, b""])


def main() -> None:
    """Until there is no more input."""
    rest = b""
    while data := os.read(0, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        said = memoryview(answers(lines))
        while said:
            said = said[os.write(1, said) :]


if __name__ == "__main__":
    main()
