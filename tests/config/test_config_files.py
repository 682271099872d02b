"""config/files: certificates, keys and tables on disk, and what is wrong with them."""

import os
from pathlib import Path

import pytest

from smtpd_ps.config.files import check_files

CERT = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def check(load_text, tmp_path: Path):
    """Problems of a configuration whose files are in tmp_path, with that path left out."""
    (tmp_path / "cert").write_text(CERT)
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "table").write_text("a b\n")

    def problems() -> list[str]:
        conf = load_text(
            f'table t "{tmp_path}/table"\npki p cert "{tmp_path}/cert"\npki p key "{tmp_path}/key"\n'
            "match from any for any reject\n"
        )
        found = [str(problem) for problem in check_files(conf)]
        return [line.removeprefix("/etc/mail/smtpd.conf:").replace(str(tmp_path), "") for line in found]

    return problems


def me() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def test_all_is_well(check) -> None:
    """Readable files with the right modes are no problem."""
    assert check() == []


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o700, 0o740])
def test_modes_a_key_may_have(check, tmp_path: Path, mode: int) -> None:
    """At most 0740: the group may read, nobody else may do anything."""
    (tmp_path / "key").chmod(mode)
    assert check() == []


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o660, 0o750, 0o777])
def test_modes_a_key_may_not_have(check, tmp_path: Path, mode: int) -> None:
    """One bit more is refused, with the mode it has and the one it may have."""
    (tmp_path / "key").chmod(mode)
    assert check() == [f'2: private key of pki "p": /key has mode {mode:04o}, expected at most 0740']


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o775])
def test_modes_a_certificate_may_not_have(check, tmp_path: Path, mode: int) -> None:
    """A certificate that others may write is refused (at most 0755)."""
    (tmp_path / "cert").chmod(mode)
    assert check() == [f'2: certificate of pki "p": /cert has mode {mode:04o}, expected at most 0755']


def test_missing_files(check, tmp_path: Path) -> None:
    """Each missing file is named, with the user who could not read it."""
    for name in ("cert", "key", "table"):
        (tmp_path / name).unlink()
    reason = f"cannot be read by {me()}: No such file or directory"
    assert check() == [
        f'2: certificate of pki "p": /cert {reason}',
        f'2: private key of pki "p": /key {reason}',
        f'1: file of table "t": /table {reason}',
    ]


def test_symbolic_links_are_followed(check, tmp_path: Path) -> None:
    """ACME clients leave links to dated files."""
    (tmp_path / "key").rename(tmp_path / "key1")
    (tmp_path / "key").symlink_to("key1")
    assert check() == []


def test_directories_and_fifos(check, tmp_path: Path) -> None:
    """Only regular files will do; a FIFO does not hang the check."""
    (tmp_path / "table").unlink()
    (tmp_path / "table").mkdir()
    (tmp_path / "cert").unlink()
    os.mkfifo(tmp_path / "cert", 0o600)
    assert check() == [
        '2: certificate of pki "p": /cert is not a regular file',
        '1: file of table "t": /table is not a regular file',
    ]


def test_contents(check, tmp_path: Path) -> None:
    """Certificate and key exchanged, and a key with a pass phrase."""
    (tmp_path / "cert").write_text(KEY)
    (tmp_path / "key").write_text(CERT)
    assert check() == [
        '2: certificate of pki "p": /cert holds no certificate in PEM form',
        '2: private key of pki "p": /key holds no private key in PEM form',
    ]
    (tmp_path / "cert").write_text(CERT)
    (tmp_path / "key").write_text(KEY.replace("PRIVATE", "ENCRYPTED PRIVATE"))
    assert check() == [
        '2: private key of pki "p": /key is protected by a pass phrase, which a daemon cannot be asked for'
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_owner(check, tmp_path: Path) -> None:
    """A key that belongs to someone else than root or oneself is refused."""
    os.chown(tmp_path / "key", 12345, 12345)
    assert check() == ['2: private key of pki "p": /key belongs to uid 12345, expected root or root']


def test_the_program_of_a_table_is_looked_for(load_text) -> None:
    """Not there is an error with the table's name and the directories; of one that nobody uses too."""
    conf = load_text(
        'table t no-such-type:/x\ntable u "proc-exec:/no/such/program"\ntable v proc-exec:/bin/cat\n'
        "match from any for any reject\n"
    )
    first, second = (str(problem) for problem in check_files(conf))
    assert 'smtpd.conf:1: table "t": table-no-such-type is in none of /usr/local/libexec/smtpd,' in first
    assert second.endswith('smtpd.conf:2: table "u": /no/such/program is not there or cannot be executed')
