"""Where the key of queue encryption comes from."""

import fcntl
import os
import subprocess
import sys
import termios

import pytest

from smtpd_ps.cli.queue_key import KeyProblem, key_at_start, refuse_reload
from smtpd_ps.config.model import Options

KEY = "0123456789abcdef0123456789abcdef"
ASK = (
    "from smtpd_ps.cli.queue_key import *; from smtpd_ps.config.model import Options\n"
    "try: print('GOT', key_at_start(Options(queue_encryption={what!r})).decode())\n"
    "except KeyProblem as error: print('PROBLEM', error)"
)


def test_from_the_configuration() -> None:
    """As written; nothing without the word."""
    assert key_at_start(Options()) == b""
    assert key_at_start(Options(queue_encryption=KEY)) == KEY.encode()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f"{KEY}\nmore", f"GOT {KEY}"),
        (KEY, f"GOT {KEY}"),
        ("short\n", "PROBLEM queue encryption: the key has 32 characters, from standard input came 5"),
        ("", "PROBLEM queue encryption: the key has 32 characters, from standard input came 0"),
    ],
)
def test_from_standard_input(given: str, said: str) -> None:
    """The first line, whose length must be right; the key is in no message."""
    argv = [sys.executable, "-c", ASK.format(what="stdin")]
    done = subprocess.run(argv, input=given, text=True, capture_output=True, timeout=30, check=True)
    assert done.stdout.strip() == said


def test_from_the_terminal() -> None:
    """Asked for on the controlling terminal, without echo."""
    master, slave = os.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    argv = [sys.executable, "-c", ASK.format(what="")]
    process = subprocess.Popen(
        argv, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=take_terminal, pass_fds=(slave,),
    )  # fmt: skip
    shown = b""
    while b"queue key: " not in shown:
        shown += os.read(master, 100)
    os.write(master, f"{KEY}\n".encode())
    out, err = process.communicate(timeout=30)
    assert out.decode().strip() == f"GOT {KEY}", err
    os.set_blocking(master, False)
    try:
        shown += os.read(master, 1000)
    except OSError:
        shown += b""
    assert KEY.encode() not in shown
    os.close(master)
    os.close(slave)


def test_without_a_terminal() -> None:
    """An error, not a wait for ever."""
    argv = [sys.executable, "-c", ASK.format(what="")]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, text=True, capture_output=True, timeout=30, check=True, start_new_session=True
    )
    assert done.stdout.strip() == "PROBLEM queue encryption: there is no terminal to ask for the key"


@pytest.mark.parametrize(
    ("given", "key", "refusal"),
    [
        (None, KEY, ""),
        (None, "", ""),
        (KEY, KEY, ""),
        ("stdin", KEY, ""),
        ("", KEY, ""),
        (KEY[::-1], KEY, "does not change"),
        (KEY, "", "turned on by a restart"),
        ("stdin", "", "turned on by a restart"),
    ],
)
def test_what_a_reload_may_do(given: str | None, key: str, refusal: str) -> None:
    """Turn encryption off; never on, and no other key."""
    said = refuse_reload(Options(queue_encryption=given), key.encode())
    assert refusal in said and bool(said) == bool(refusal)


def test_no_problem_has_the_key_in_it() -> None:
    """Problems go to logs."""
    with pytest.raises(KeyProblem) as caught:
        key_at_start(Options(queue_encryption="a secret of another length"))
    assert "secret" not in str(caught.value)
