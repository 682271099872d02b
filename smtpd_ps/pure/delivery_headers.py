"""The header lines that local delivery puts first, and the loop they let us find.

Pure; runs in delivery (LMTP) and agents (Maildir, mbox); reads headers of stored messages. As
OpenSMTPD's mda.c does: Return-Path unless the sender is null (one that is there already stays),
then Delivered-To with the address the message was sent to, as the client gave it; a message that bears our Delivered-To
already is going round in circles.
"""

HEADER_SEARCH_BYTES = 65536


def local_headers(sender: str, rcpt: str) -> bytes:
    """The lines to put before a body; line ends are CRLF."""
    if sender:
        return f"Return-Path: <{sender}>\r\nDelivered-To: {rcpt}\r\n".encode()
    return f"Delivered-To: {rcpt}\r\n".encode()


def delivered_to(start: bytes) -> frozenset[bytes]:
    """The addresses, in lower case, of the Delivered-To lines in the header at the start of a message."""
    end = start.find(b"\r\n\r\n")
    header = (start if end < 0 else start[:end]).lower()
    if b"delivered-to:" not in header:
        return frozenset()
    lines = header.split(b"\r\n")
    return frozenset(line[13:].strip() for line in lines if line.startswith(b"delivered-to:"))
