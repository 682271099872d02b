"""`smtpctl_ps encrypt`: a hash for a credentials table. Runs as anyone, talks to no daemon."""

import getpass
import sys
from collections.abc import Sequence

from passlib.hash import sha512_crypt

ROUNDS = 5000  # crypt(3)'s own default, which leaves the rounds out of the hash as $6$salt$hash


def hash_password(password: str) -> str:
    """The $6$ hash (crypt(3), SHA-512) of `password` with a random salt."""
    return str(sha512_crypt.using(rounds=ROUNDS).hash(password))


def encrypt(given: Sequence[str]) -> int:
    """Hash the argument, or each line of standard input; a terminal is asked without echo."""
    if given:
        passwords = [given[0]]
    elif sys.stdin.isatty():
        passwords = [getpass.getpass("Password: ")]
    else:
        passwords = [line.rstrip("\n") for line in sys.stdin]
    for password in passwords:
        print(hash_password(password))
    return 0
