"""The samples in etc/, and the example of the manual page, are configurations that work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`smtpd_ps -n` on a configuration."""
    return subprocess.run(
        [sys.executable, "-m", "smtpd_ps.cli.smtpd_ps", "-n", "-f", str(path), *words],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip


def test_sample_configuration_passes(tmp_path: Path) -> None:
    """etc/smtpd.conf passes the check as it is, with the sample aliases where it looks for them."""
    text = (ROOT / "etc" / "smtpd.conf").read_text()
    assert '"/usr/local/etc/mail/aliases"' in text
    (tmp_path / "smtpd.conf").write_text(text.replace("/usr/local/etc/mail/aliases", str(ROOT / "etc" / "aliases")))
    done = check(tmp_path / "smtpd.conf")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "configuration OK\n"


@pytest.mark.parametrize("text", ["etc/smtpd.conf", "docs/man/smtpd.conf.5"])
def test_commented_lines_and_the_manuals_example_parse(text: str, tmp_path: Path) -> None:
    """Lines that the sample comments out, and the manual page's example, have nothing but missing files."""
    source = (ROOT / text).read_text()
    if text.endswith(".5"):
        source = source[source.index(".Bd -literal") :].split("\n", 1)[1].split(".Ed")[0].replace("\\e\n", "\\\n")
    else:
        source = re.sub(r"^#(?=[a-z])", "", source, flags=re.MULTILINE)
    source = source.replace("listen on localhost", "listen on 127.0.0.1 port 2525")
    (tmp_path / "smtpd.conf").write_text(re.sub(r"listen on (egress|em0)", "listen on lo", source))
    done = check(tmp_path / "smtpd.conf")
    faults = [line for line in done.stderr.splitlines() if "No such file" not in line]
    assert not faults, done.stderr


def test_sample_aliases_have_no_loop() -> None:
    """Every alias of etc/aliases leads to root in the end."""
    entries = dict(
        line.split(":", 1) for line in (ROOT / "etc" / "aliases").read_text().splitlines() if line and line[0] != "#"
    )
    for name in entries:
        seen = []
        while name in entries:
            assert name not in seen, seen
            seen.append(name)
            name = entries[name].strip()
        assert name == "root"
