"""`smtpctl_ps trace session`: what the processes say of an address, a user or a message, live, until interrupted.

Runs in the operator's command; what it prints was escaped by the process that said it.
"""

import sys

from smtpd_ps.cli.ask import Conversation
from smtpd_ps.contract import messages as m
from smtpd_ps.pure.session_trace import SessionTrace
from smtpd_ps.runtime.log import escape


def follow(state_dir: str | None, pattern: str) -> int:
    """Print lines as they come."""
    trace = SessionTrace(pattern)
    try:
        with Conversation(state_dir, timeout_secs=None) as conversation:
            for part in conversation.ask(m.Follow(0, True)):
                if not isinstance(part, m.FollowedLine):
                    continue
                process = part.process.title
                if part.unsent:
                    print(f"smtpctl_ps: {part.unsent} lines of {process} were left out", file=sys.stderr)
                for line in trace.line(process, escape(part.text)):
                    print(line, flush=True)
    except KeyboardInterrupt:
        return 0
    return 0
