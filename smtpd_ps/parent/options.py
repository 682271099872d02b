"""What the command line of smtpd_ps says. In the parent; a value."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Options:
    """Options of smtpd_ps(8)."""

    config_path: str
    defines: dict[str, str] = field(default_factory=dict)
    state_dir: str | None = None
    log_to_stderr: bool = False  # -d
    foreground: bool = False  # -d or -F
    verbose: int = 0
    unprivileged: bool = False
    resolver: str = ""  # "address:port", for tests
    traces: int = 0  # -T, as runtime.tracing's mask
    paused: frozenset[str] = frozenset()  # -P: mda, mta, smtp; of the start alone, a reload keeps what is paused
