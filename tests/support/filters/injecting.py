"""A hostile filter for tests: what a client says chooses the attack that is made on the session and the message.

An address or name `N.attack.test` gets line N of the file that is the first argument as the answer of its phase, with
Python's escapes; a line `X-Lines: N` of a message is replaced by that line, which may stand for several.
"""

import re
import sys

with open(sys.argv[1], encoding="ascii") as file:
    attacks = [line.rstrip("\n").encode().decode("unicode_escape").encode("latin-1") for line in file]


def say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


for raw in sys.stdin.buffer:
    fields = raw.rstrip(b"\n").split(b"|", 7)
    if fields[:2] == [b"config", b"ready"]:
        for phase in (b"ehlo", b"mail-from", b"rcpt-to", b"data-line"):
            say(b"register|filter|smtp-in|" + phase)
        say(b"register|ready")
    if fields[0] != b"filter":
        continue
    answer = b"|".join(fields[5:7])
    if fields[4] == b"data-line":
        found = re.match(rb"X-Lines: (\d+)", fields[7])
        for line in attacks[int(found[1])].split(b"\n") if found else [fields[7]]:
            say(b"filter-dataline|" + answer + b"|" + line)
        continue
    found = re.search(rb"(\d+)\.attack\.test", fields[7])
    say(b"filter-result|" + answer + b"|" + (attacks[int(found[1])] if found else b"proceed"))
