"""rc.d/smtpd_ps.openbsd, under a stand-in rc.subr and, where RC_SUBR_OPENBSD names it, the real one."""

import os
import signal
from pathlib import Path

import pytest
from service_scratch import Scratch
from support.daemon import wait_until

STUB = Path(__file__).parent / "openbsd.subr"
REAL = os.environ.get("RC_SUBR_OPENBSD")
KINDS = [("stand-in", "dash"), ("stand-in", "mksh"), *([("real", "mksh")] if REAL else [])]


@pytest.fixture(params=KINDS, ids=" ".join)
def service(request: pytest.FixtureRequest, scratch: Scratch) -> Scratch:
    """The service installed with one of the two rc.subr files, for one shell."""
    kind, shell = request.param
    text = (Path(REAL) if kind == "real" and REAL else STUB).read_text()
    for path in ("/etc/rc.conf.local", "/var/run/rc.d"):
        text = text.replace(path, f"{scratch.home}{path}")
    (scratch.home / "etc").mkdir(exist_ok=True)
    scratch.install(shell, "smtpd_ps.openbsd", text, {"/etc/rc.d/rc.subr": f"{scratch.home}/rc.subr"})
    set_flags(scratch, "")
    return scratch


def set_flags(service: Scratch, flags: str) -> None:
    """Set smtpd_ps_flags in rc.conf.local (the stand-in takes it from the environment)."""
    service.environment["smtpd_ps_flags"] = flags
    (service.home / "etc" / "rc.conf.local").write_text(f"smtpd_ps_flags={flags}\n")


def test_real_rc_subr() -> None:
    """OpenBSD's own rc.subr runs all of these tests too, where there is one."""
    if not REAL:
        pytest.skip("RC_SUBR_OPENBSD does not name OpenBSD's rc.subr: only the stand-in is used")
    assert "OpenBSD" in Path(REAL).read_text()


def knows_configtest(service: Scratch) -> bool:
    """Whether this rc.subr checks the configuration by itself (OpenBSD 7.4 and later do)."""
    return "configtest" in (service.home / "rc.subr").read_text()


def test_start_check_stop(service: Scratch) -> None:
    """start runs the daemon, check finds it by its title, stop ends it, and check then fails."""
    assert service.script("check").returncode == 1
    started = service.script("start")
    assert started.returncode == 0, started
    assert service.calls[-1] == "smtpd_ps"
    assert service.daemon_pid is not None
    assert service.script("check").returncode == 0
    assert service.script("stop").returncode == 0
    assert service.daemon_pid is None
    assert service.script("check").returncode == 1


def test_start_twice_starts_one(service: Scratch) -> None:
    """A second start finds the running daemon and leaves it alone."""
    service.script("start")
    first = service.daemon_pid
    service.forget_calls()
    assert service.script("start").returncode == 0
    assert service.daemon_pid == first is not None
    assert "smtpd_ps" not in service.calls


def test_flags_reach_the_daemon(service: Scratch) -> None:
    """smtpd_ps_flags of rc.conf.local is given to the daemon, and to the check of its configuration."""
    set_flags(service, "-v -f /etc/mail/other.conf")
    service.script("start")
    assert "smtpd_ps -v -f /etc/mail/other.conf" in service.calls
    if knows_configtest(service):
        assert "smtpd_ps -n -v -f /etc/mail/other.conf" in service.calls


def test_bad_setup_refuses_start(service: Scratch) -> None:
    """Where `setup --check` finds a difference nothing is started, and the script ends 1."""
    (service.home / "setup-differs").touch()
    assert service.script("start").returncode == 1
    assert service.daemon_pid is None
    assert "smtpctl_ps setup --check" in service.calls
    assert "smtpd_ps" not in service.calls


def test_bad_configuration_refuses_start(service: Scratch) -> None:
    """configtest ends 1 on a bad configuration, start refuses it, and a good one passes."""
    if not knows_configtest(service):
        pytest.skip("this rc.subr has no configtest")
    assert service.script("configtest").returncode == 0
    (service.home / "configuration-is-bad").touch()
    assert service.script("configtest").returncode == 1
    assert service.script("start").returncode == 1
    assert service.daemon_pid is None


def test_reload_is_a_signal_to_the_parent(service: Scratch) -> None:
    """reload sends SIGHUP, which the daemon survives; not where the new configuration is bad."""
    service.script("start")
    pid = service.daemon_pid
    assert service.script("reload").returncode == 0
    wait_until("the signal arrived", lambda: "SIGHUP" in service.calls)
    assert service.daemon_pid == pid is not None
    if knows_configtest(service):
        (service.home / "configuration-is-bad").touch()
        assert service.script("reload").returncode == 1
        assert service.calls.count("SIGHUP") == 1


def test_another_program_of_that_name_is_not_taken_for_it(service: Scratch) -> None:
    """A process whose title only begins like the parent's (a child) is not the daemon."""
    service.script("start")
    pid = service.daemon_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    daemon = service.home / "bin" / "smtpd_ps"
    daemon.write_text(daemon.read_text().replace("smtpd_ps: parent", "smtpd_ps: queue"))
    (service.home / "run" / "smtpd_ps.pid").unlink()
    service.script("start")
    assert service.daemon_pid is not None
    assert service.script("check").returncode == 1
