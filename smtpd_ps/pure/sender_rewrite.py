"""The envelope sender that a relay shows in place of the real one (`relay mail-from`).

Runs in delivery; senders are strangers' text, checked before they were stored.
"""


def rewrite_sender(sender: str, mail_from: str) -> str:
    """What MAIL FROM says of `sender`; the null sender stays (QUIRKS 36), and all do without `mail_from`.

    `mail_from` is an address, or "@domain", which keeps the user.
    """
    if not mail_from or not sender:
        return sender
    return sender.rpartition("@")[0] + mail_from if mail_from.startswith("@") else mail_from
