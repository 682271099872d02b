"""A filter for tests: registers for everything, writes all it is sent to a file, and does as it is told.

Arguments: the file, then any of `PHASE=ANSWER` (the answer to that phase), `no-data` (does not register for
data-line), `only=PHASE` (registers for this phase and nothing else), `upper` (turns body lines to upper case),
`outgoing` (wants reports of mail that goes out and no others), `hold` (keeps all data lines back until the end)
and a fault: `exit-at=PHASE`, `hang-at=PHASE`, `rubbish-at=PHASE`, `twice-at=PHASE`, `token-at=PHASE`, `flood-at=PHASE`,
`early-end`.
"""

import os
import sys

path, *options = sys.argv[1:]
answers = {k: v for k, _, v in (o.partition("=") for o in options) if v and not k.endswith("-at") and k != "only"}
faults = {o.split("=")[1]: o.split("-at=")[0] for o in options if "-at=" in o}
only = next((o[5:] for o in options if o.startswith("only=")), "")
log = open(path, "ab", buffering=0)  # noqa: SIM115
held: dict[bytes, list[bytes]] = {}


def say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


phases = (
    "connect", "helo", "ehlo", "starttls", "auth", "mail-from", "rcpt-to", "data", "data-line", "rset", "quit", "noop",
    "help", "wiz", "commit",
)  # fmt: skip
for raw in sys.stdin.buffer:
    line = raw.rstrip(b"\n")
    log.write(line + b"\n")
    if line == b"config|ready":
        if only:
            say(b"register|filter|smtp-in|" + only.encode())
        else:
            say(b"register|report|smtp-out|*" if "outgoing" in options else b"register|report|smtp-in|*")
            for phase in phases:
                if phase != "data-line" or "no-data" not in options:
                    say(b"register|filter|smtp-in|" + phase.encode())
        say(b"register|ready")
        continue
    fields = line.split(b"|", 7)
    if fields[0] != b"filter":
        continue
    phase, session, token = fields[4].decode(), fields[5], fields[6]
    fault = faults.get(phase, "")
    if fault == "exit":
        sys.stderr.write("out of luck\n")
        sys.exit(3)
    if fault == "hang":
        continue
    if fault == "rubbish":
        say(b"what|is\xff this")
        continue
    if fault == "flood":
        try:
            while True:
                os.write(1, b"x" * 65536)
        except BrokenPipeError:
            sys.exit(0)
    if fault == "token":
        token = b"00000000deadbeef"
    if phase == "data-line":
        text = fields[7]
        if "early-end" in options:
            text = b"."
        elif "upper" in options:
            text = text.upper()
        if "hold" in options and text != b".":
            held.setdefault(session, []).append(text)
            continue
        for each in held.pop(session, []):
            say(b"filter-dataline|" + session + b"|" + token + b"|" + each)
        say(b"filter-dataline|" + session + b"|" + token + b"|" + text)
        continue
    answer = b"filter-result|" + session + b"|" + token + b"|" + answers.get(phase, "proceed").encode()
    say(answer)
    if fault == "twice":
        say(answer)
