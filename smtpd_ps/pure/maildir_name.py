"""Names of messages in a Maildir: unique on this host without asking anyone.

Pure; runs in agents. The form is cr.yp.to/proto/maildir.html's: `secs.MusecPpidQn.host`.
"""


def safe_host(name: str) -> str:
    """`name` as it may stand in a file name: slash and colon as the Maildir page escapes them."""
    kept = "".join(c if c.isascii() and c.isprintable() else "_" for c in name)
    return kept.replace("/", "\\057").replace(":", "\\072") or "localhost"


class MaildirNames:
    """Makes names; `pid` and the counter set apart those of one microsecond."""

    __slots__ = ("_count", "_host", "_pid")

    def __init__(self, pid: int, host: str) -> None:
        self._pid = pid
        self._host = safe_host(host)
        self._count = 0

    def make(self, now_ns: int) -> str:
        """The next name, at `now_ns` nanoseconds of Unix time."""
        self._count += 1
        secs, rest = divmod(now_ns, 1_000_000_000)
        return f"{secs}.M{rest // 1000}P{self._pid}Q{self._count}.{self._host}"
