"""mailq(8): the queue, as `smtpctl_ps show queue` lists it.

Runs as the operator, who must be root.
"""

import sys
from collections.abc import Sequence

from smtpd_ps.cli import shows
from smtpd_ps.cli.ask import DaemonError

USAGE = "usage: mailq_ps [--json] [--state-dir dir]"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    state_dir, json = None, False
    while words:
        word = words.pop(0)
        if word == "--json":
            json = True
        elif word == "--state-dir" and words:
            state_dir = words.pop(0)
        else:
            print(f"mailq_ps: unexpected {word!r}\n{USAGE}", file=sys.stderr)
            return 1
    try:
        return shows.queue(state_dir, 0, json)
    except DaemonError as error:
        print(f"mailq_ps: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader has seen enough
        return 1


if __name__ == "__main__":
    sys.exit(main())
