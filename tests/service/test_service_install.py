"""make install, into a scratch DESTDIR, as on each of the systems."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MANUALS = sorted(path.name for path in (ROOT / "docs" / "man").iterdir())
PLACES = {
    "OpenBSD": ("man", "etc/rc.d/smtpd_ps", 0o555),
    "FreeBSD": ("opt/mail/share/man", "opt/mail/etc/rc.d/smtpd_ps", 0o555),
    "Linux": ("opt/mail/share/man", "opt/mail/lib/systemd/system/smtpd_ps.service", 0o444),
}


def install(destination: Path, system: str) -> subprocess.CompletedProcess[str]:
    """`make install` with this Python."""
    words = [f"DESTDIR={destination}", "PREFIX=/opt/mail", f"OS={system}", f"PYTHON={sys.executable}"]
    return subprocess.run(
        ["make", "-C", str(ROOT), "install", *words],
        capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
    )  # fmt: skip


@pytest.mark.parametrize("system", PLACES)
def test_install_puts_everything_in_its_place(system: str, tmp_path: Path) -> None:
    """Package, commands, manual pages, samples, licence and the system's service script, below DESTDIR alone."""
    before = {path.name for path in ROOT.iterdir()}
    done = install(tmp_path, system)
    assert done.returncode == 0, done.stderr
    man, service, mode = PLACES[system]
    man_root = tmp_path / ("opt/mail/man" if system == "OpenBSD" else man)
    assert sorted(path.name for path in man_root.rglob("*.[1-9]")) == MANUALS
    script = tmp_path / service
    assert stat.S_IMODE(script.stat().st_mode) == mode
    assert "/usr/local" not in script.read_text()
    assert "/opt/mail/bin/smtpd_ps" in script.read_text()
    commands = {path.name for path in (tmp_path / "opt/mail/bin").iterdir()}
    assert {"smtpd_ps", "smtpctl_ps"} <= commands
    for program in ("filter-auth", "filter-dkim", "table-postgres", "table-sqlite"):
        assert (tmp_path / "opt/mail/libexec/smtpd" / program).readlink() == Path("/opt/mail/bin") / program
        assert program in commands
    share = tmp_path / "opt/mail/share"
    assert (share / "doc/smtpd_ps/LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    samples = {path.name for path in (share / "examples/smtpd_ps").iterdir()}
    assert samples == {path.name for path in (ROOT / "etc").iterdir()}
    assert {path.name for path in ROOT.iterdir()} == before, "the checkout was changed"


def test_install_is_byte_compiled_and_complete(tmp_path: Path) -> None:
    """Every module is installed, with bytecode: a confined process cannot write any."""
    assert install(tmp_path, "Linux").returncode == 0
    (package,) = tmp_path.rglob("smtpd_ps/__init__.py")
    installed = {path.relative_to(package.parent) for path in package.parent.rglob("*.py")}
    assert installed == {path.relative_to(ROOT / "smtpd_ps") for path in (ROOT / "smtpd_ps").rglob("*.py")}
    tag = f"{sys.implementation.cache_tag}.pyc"
    for module in installed:
        compiled = package.parent / module.parent / "__pycache__" / f"{module.stem}.{tag}"
        assert compiled.exists(), module


def test_install_refuses_a_prefix_that_python_does_not_search(tmp_path: Path) -> None:
    """Without DESTDIR, a package that this Python would never find is not installed, and the error says what to do."""
    done = subprocess.run(
        ["sh", str(ROOT / ".ci" / "install"), sys.executable, "", str(tmp_path), "Linux"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"PREFIX={sys.prefix}" in done.stderr
    assert not any(tmp_path.iterdir())


def test_unit_names_what_is_installed() -> None:
    """The systemd unit runs commands that the package installs, with options that they take."""
    unit = (ROOT / "rc.d" / "smtpd_ps.service").read_text()
    started = re.findall(r"^ExecStart(?:Pre)?=/usr/local/bin/(.*)$", unit, re.MULTILINE)
    assert started == ["smtpctl_ps setup --check", "smtpd_ps -n", "smtpd_ps -F"]
    assert re.findall(r"^ExecReload=/usr/local/bin/(.*)$", unit, re.MULTILINE) == ["smtpctl_ps reload"]


def test_unit_is_valid(tmp_path: Path) -> None:
    """systemd itself finds nothing wrong with the unit."""
    if not Path("/usr/bin/systemd-analyze").exists():
        pytest.skip("systemd-analyze is not installed")
    unit = (ROOT / "rc.d" / "smtpd_ps.service").read_text()
    copy = tmp_path / "smtpd_ps.service"
    copy.write_text(
        unit.replace("/usr/local/bin/smtpd_ps", "/bin/true").replace("/usr/local/bin/smtpctl_ps", "/bin/true")
    )
    done = subprocess.run(
        ["/usr/bin/systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "smtpd_ps.service" not in done.stderr, done.stderr
