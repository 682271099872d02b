"""The process title that ps shows: `smtpd_ps: queue`. Runs in every process; parses nothing."""

from setproctitle import setproctitle


def set_title(role: str) -> None:
    """Show this process as `smtpd_ps: ROLE`."""
    setproctitle(f"smtpd_ps: {role}")
