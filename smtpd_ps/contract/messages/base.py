"""The base of every message. Loaded in every process."""

from smtpd_ps.contract.values import Value


class Message(Value, frozen=True):
    """What travels over a channel."""
