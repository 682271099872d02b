"""rc.d/smtpd_ps.freebsd, under a stand-in rc.subr and, where RC_SUBR_FREEBSD names it, the real one."""

import os
from pathlib import Path

import pytest
from service_scratch import Scratch
from support.daemon import wait_until

STUB = Path(__file__).parent / "freebsd.subr"
REAL = os.environ.get("RC_SUBR_FREEBSD")
KINDS = [("stand-in", "dash"), ("stand-in", "mksh"), *([("real", "dash")] if REAL else [])]


@pytest.fixture(params=KINDS, ids=" ".join)
def service(request: pytest.FixtureRequest, scratch: Scratch) -> Scratch:
    """The service installed with one of the two rc.subr files, for one shell, and enabled."""
    kind, shell = request.param
    text = (Path(REAL) if kind == "real" and REAL else STUB).read_text(errors="replace")
    # Our ps, our rc.conf, and a literal that dash lacks.
    text = text.replace("/bin/ps -ww", "ps").replace("/etc/defaults/rc.conf", f"{scratch.home}/rc.conf")
    text = text.replace("IFS=$'\\n'", "IFS='\n'")
    paths = {name: f"{scratch.home}{name}" for name in ("/var/run/smtpd_ps", "/usr/local/etc/mail")}
    for path in paths.values():
        Path(path).mkdir(parents=True)
    (scratch.home / "run").rmdir()
    (scratch.home / "run").symlink_to(paths["/var/run/smtpd_ps"])
    scratch.install(shell, "smtpd_ps.freebsd", text, {"/etc/rc.subr": f"{scratch.home}/rc.subr", **paths})
    configuration(scratch).write_text("# not read by the fake daemon\n")
    (scratch.home / "rc.conf").write_text('smtpd_ps_enable="YES"\n')
    scratch.environment["RC_CONF"] = str(scratch.home / "rc.conf")
    return scratch


def configuration(service: Scratch) -> Path:
    """The smtpd.conf that the script names by itself."""
    return service.home / "usr/local/etc/mail/smtpd.conf"


def test_real_rc_subr() -> None:
    """FreeBSD's own rc.subr runs all of these tests too, where there is one."""
    if not REAL:
        pytest.skip("RC_SUBR_FREEBSD does not name FreeBSD's rc.subr: only the stand-in is used")
    assert "FreeBSD" in Path(REAL).read_text(errors="replace")


def configure(service: Scratch, *lines: str) -> None:
    """Write rc.conf anew."""
    (service.home / "rc.conf").write_text("".join(f"{line}\n" for line in lines))


def test_start_status_stop(service: Scratch) -> None:
    """start checks and runs the daemon, status finds it by pid file and title, stop ends it."""
    assert service.script("status").returncode == 1
    started = service.script("start")
    assert started.returncode == 0, started
    assert service.calls[-1] == f"smtpd_ps -f {configuration(service)}"
    status = service.script("status")
    assert status.returncode == 0
    assert str(service.daemon_pid) in status.stdout
    assert service.script("stop").returncode == 0
    assert service.daemon_pid is None
    assert service.script("status").returncode == 1


def test_not_enabled_does_nothing(service: Scratch) -> None:
    """Without smtpd_ps_enable nothing is started; onestart starts it all the same."""
    configure(service)
    service.script("start")
    assert service.daemon_pid is None
    assert service.script("onestart").returncode == 0
    assert service.daemon_pid is not None


def test_rcvar_is_shown(service: Scratch) -> None:
    """rcvar names the variable and its value."""
    assert "smtpd_ps_enable" in service.script("rcvar").stdout


def test_settings_reach_the_daemon(service: Scratch) -> None:
    """smtpd_ps_config and smtpd_ps_flags are given to the daemon and to its check."""
    other = service.home / "other.conf"
    other.touch()
    configure(service, 'smtpd_ps_enable="YES"', f'smtpd_ps_config="{other}"', 'smtpd_ps_flags="-v"')
    assert service.script("start").returncode == 0
    assert service.calls == ["smtpctl_ps setup --check", f"smtpd_ps -n -v -f {other}", f"smtpd_ps -v -f {other}"]


def test_missing_configuration_refuses_start(service: Scratch) -> None:
    """required_files: without the configuration nothing is started."""
    configuration(service).unlink()
    assert service.script("start").returncode != 0
    assert service.daemon_pid is None


def test_configtest(service: Scratch) -> None:
    """configtest is an extra command; a bad configuration ends it 1 and refuses start and restart."""
    assert service.script("configtest").returncode == 0
    assert service.script("start").returncode == 0
    first = service.daemon_pid
    (service.home / "configuration-is-bad").touch()
    assert service.script("configtest").returncode != 0
    assert service.script("restart").returncode != 0
    assert service.daemon_pid == first is not None, "restart must not stop what it cannot start again"
    service.script("stop")
    assert service.script("start").returncode != 0
    assert service.daemon_pid is None


def test_bad_setup_refuses_start(service: Scratch) -> None:
    """Where `setup --check` finds a difference nothing is started."""
    (service.home / "setup-differs").touch()
    assert service.script("start").returncode != 0
    assert service.daemon_pid is None


def test_restart_makes_a_new_process(service: Scratch) -> None:
    """restart ends the daemon and starts another."""
    service.script("start")
    first = service.daemon_pid
    assert service.script("restart").returncode == 0
    assert service.daemon_pid not in (None, first)


def test_reload_is_a_signal_to_the_parent(service: Scratch) -> None:
    """reload sends SIGHUP, which the daemon survives; not where the new configuration is bad, or nothing runs."""
    assert service.script("reload").returncode != 0
    service.script("start")
    pid = service.daemon_pid
    assert service.script("reload").returncode == 0
    wait_until("the signal arrived", lambda: "SIGHUP" in service.calls)
    assert service.daemon_pid == pid is not None
    (service.home / "configuration-is-bad").touch()
    assert service.script("reload").returncode != 0
    assert service.calls.count("SIGHUP") == 1
