"""A table program for tests, run as `python -I -S table_program.py MODE [entries.json]`. Standard library only.

It knows what entries.json says: {"service": {"key": "value"}}; a list service's values are "". MODE is how it
behaves: good, slow (answers keys that begin with "slow" after a word in the file `go` beside the entries), dying (ends
at a key that begins with "die"), rubbish, flood, wrong-id, twice, deaf (reads nothing after the handshake), mute
(answers nothing), silent (never registers), missing (registers only string), exit (ends at once).
"""

import json
import os
import signal
import sys
import time


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    mode, path = sys.argv[1], sys.argv[2]
    if mode == "exit":
        sys.exit("cannot reach the database")
    for line in sys.stdin:
        if line == "config|ready\n":
            break
    if mode == "silent":
        sys.stdin.read()
    with open(path) as file:
        entries = json.load(file)
    for service in ["string"] if mode == "missing" else entries:
        say(f"register|{service}")
    say("register|ready")
    late: list[str] = []
    if mode == "deaf":
        time.sleep(600)
    for line in sys.stdin:
        fields = line.rstrip("\n").split("|", 7)
        operation = fields[4]
        if operation == "update":
            with open(path) as file:
                entries = json.load(file)
            say(f"update-result|{fields[5]}|ok")
            continue
        service, number = fields[5], fields[6]
        key = fields[7] if len(fields) > 7 else ""
        sys.stderr.write(f"{operation} {service} {key if service != 'auth' else '...'}\n")
        sys.stderr.flush()
        value = entries.get(service, {}).get(key)
        found = "not-found" if value is None else "found" if operation == "check" else f"found|{value}"
        answer = f"{operation}-result|{number}|{found}"
        bad = key.startswith("bad")
        if mode == "dying" and key.startswith("die"):
            os._exit(3)
        elif mode == "rubbish" and bad:
            say("what?")
        elif mode == "flood" and bad:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            while True:
                os.write(1, b"x" * 65536)
        elif mode == "wrong-id" and bad:
            say(f"{operation}-result|deadbeef|{found}")
        elif mode == "twice" and bad:
            say(answer)
            say(answer)
        elif mode == "error" and bad:
            say(f"{operation}-result|{number}|error|the database is away")
        elif mode == "mute" and bad:
            pass
        elif mode == "slow" and key.startswith("slow") and not os.path.exists(path + ".go"):
            late.append(answer)
        else:
            say(answer)
        if late and os.path.exists(path + ".go"):
            for held in late:
                say(held)
            late.clear()


main()
