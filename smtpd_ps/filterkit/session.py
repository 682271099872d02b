"""What is known of a session: gathered from its reports, beside what the filter keeps about it.

Runs in filter programs. Texts are the client's.
"""

from smtpd_ps.filterkit.events import (
    Event,
    LinkAuth,
    LinkConnect,
    LinkIdentify,
    LinkTls,
    TxBegin,
    TxCommit,
    TxMail,
    TxRcpt,
    TxReset,
    TxRollback,
)


class Session:
    """One SMTP session. The facts are kept up where the filter's `follows` is true (the default).

    `state` is the filter's own: whatever it wants to remember until the session ends.
    """

    __slots__ = (
        "destination",
        "fcrdns",
        "id",
        "identity",
        "message_id",
        "method",
        "rdns",
        "recipients",
        "sender",
        "source",
        "state",
        "subsystem",
        "tls",
        "too_large",
        "user",
    )  # fmt: skip

    def __init__(self, id: str, subsystem: str) -> None:
        self.id = id
        self.subsystem = subsystem
        self.rdns = self.fcrdns = self.source = self.destination = ""
        self.method = self.identity = self.tls = ""
        self.user = ""  # whom the client has authenticated as
        self.message_id = ""
        self.sender: str | None = None  # of the transaction; None outside of one
        self.recipients: list[str] = []
        self.too_large = False  # this message was more than the filter's max_message_bytes
        self.state: dict[str, object] = {}

    @property
    def address(self) -> str:
        """The client's IP address without port and brackets; "" for a local socket."""
        if self.source.startswith("unix:"):
            return ""
        host = self.source.rpartition(":")[0]
        return host.removeprefix("[").removesuffix("]").removeprefix("IPv6:")

    def learn(self, event: Event) -> None:
        """Take up what a report says."""
        match event:
            case LinkConnect():
                self.rdns, self.fcrdns = event.rdns, event.fcrdns
                self.source, self.destination = event.source, event.destination
            case LinkIdentify():
                self.method, self.identity = event.method, event.identity
            case LinkTls():
                self.tls = event.tls
            case LinkAuth(result="pass"):
                self.user = event.user
            case TxBegin():
                self._clear()
                self.message_id = event.message_id
            case TxMail(result="ok"):
                self.sender = event.address
            case TxRcpt(result="ok"):
                self.recipients.append(event.address)
            case TxReset() | TxCommit() | TxRollback():
                self._clear()
            case _:
                pass

    def _clear(self) -> None:
        self.message_id, self.sender, self.recipients = "", None, []


FOLLOWED: tuple[type[Event], ...] = (
    LinkConnect, LinkIdentify, LinkTls, LinkAuth, TxBegin, TxMail, TxRcpt, TxReset, TxCommit, TxRollback,
)  # fmt: skip
