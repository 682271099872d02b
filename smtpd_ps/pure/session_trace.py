"""Which lines of the processes are of the sessions and messages that an operator watches.

Pure. Its lines quote strangers, escaped already. A line is wanted that has the pattern in it as a whole word (an
address, a user, a message id, which is also the beginning of its envelopes' ids), or an id that such a line
brought: smtp and lookup connect a client's session with its message. A connection to another host carries mail
of many, so that lines of delivery and queue connect nothing.
"""

import re
from collections import deque

MAX_IDS = 1000
MAX_RECENT = 2000  # lines kept, for a session that turns out to be wanted
_SESSION = re.compile(r"\b[0-9a-f]{16}\b")
_MAIL = re.compile(r"\b(?:msgid=|evpid=|2\.0\.0 )([0-9a-f]{8})")
CONNECTING = frozenset(("smtp", "lookup"))


class SessionTrace:
    """Takes every line there is, in any order of the processes, and gives those that are wanted."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(rf"(?<![\w.@+-]){re.escape(pattern)}(?![\w@+-]|\.\w)", re.IGNORECASE)
        self._ids: dict[str, None] = {}
        self._recent: deque[tuple[frozenset[str], str]] = deque(maxlen=MAX_RECENT)
        if re.fullmatch(r"[0-9a-fA-F]{8}", pattern):
            self._ids[pattern.lower()] = None

    def line(self, process: str, text: str) -> list[str]:
        """What is to be shown now that this line has come: earlier lines of its session too, and it."""
        sessions, mails = frozenset(_SESSION.findall(text)), frozenset(_MAIL.findall(text))
        ids, shown = sessions | mails, f"{process}: {text}"
        if not (self._pattern.search(text) or any(one in self._ids for one in ids)):
            self._recent.append((ids, shown))
            return []
        found = [shown]
        if process in CONNECTING:
            fresh = {one for one in ids if one not in self._ids}
            if fresh:
                found = [each for known, each in self._recent if known & fresh] + found
                self._recent = deque((one for one in self._recent if not one[0] & fresh), MAX_RECENT)
                self._ids |= dict.fromkeys(fresh)
                while len(self._ids) > MAX_IDS:
                    del self._ids[next(iter(self._ids))]
        return found
