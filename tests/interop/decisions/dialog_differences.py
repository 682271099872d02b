"""Where the SMTP dialogues go otherwise than with OpenSMTPD 6.8, and why. Each kind stands in DIFFERENCES.md."""

KINDS: dict[str, str] = {
    "line ends": "only CRLF ends a line; a bare CR or LF is refused, whatever it would end",
    "bytes": "control characters, NUL and bytes that are no UTF-8 are refused before anything else is looked at",
    "lengths": "a long line is refused before its end, and one of data leaves the session open; headers are bounded",
    "noop": "NOOP takes arguments, as RFC 5321 4.1.1.9 and 7.8 have it",
    "ehlo": "a repeated HELO or EHLO is accepted and resets (RFC 5321 4.1.4)",
    "dsn": "RET, ENVID and NOTIFY are held to RFC 3461, and no parameter comes twice",
    "orcpt": "500 characters of ORCPT are taken, as by 7.8, and its address is xtext, as for 7.8",
    "refused RCPT": "what a refused RCPT said of notifications is forgotten",
    "path": "nothing but a blank may follow the path",
    "SIZE": "SIZE= is checked at MAIL",
    "size": "the end of a line counts as the two bytes that it is (RFC 1870 5)",
    "refused": "who was refused with 554 in place of the greeting may only leave (RFC 5321 3.1)",
    "530": "the code of RFC 3207 4",
}
# By case: its kind, and the steps at which the replies differ, as "ours | theirs".
DIFFERENT: dict[str, tuple[str, tuple[str, ...]]] = {
    "data: dots": ("line ends", ("550 5.6.11 | 250 2.0.0",)),
    "data: a bare LF: one refusal, and what follows is the message still": (
        "line ends",
        (
            "550 5.6.11 | 500 5.5.1",
            "250 2.0.0 | closed",
        ),
    ),
    "data: LF dot CRLF": ("line ends", ("550 5.6.11 | 500 5.5.1",)),
    "data: CRLF dot LF and CRLF dot CR": ("line ends", ("550 5.6.11 | 500 5.5.1",)),
    "data: CRLF NUL dot CRLF": ("bytes", ("550 5.6.0 | 250 2.0.0",)),
    "data: a line of more than 65535 bytes, sent whole": ("lengths", ("250 2.0.0 | closed",)),
    "data: a large message that turns out bad is dropped, sent whole": ("line ends", ("550 5.6.11 | 250 2.0.0",)),
    "data: a header that never ends, sent whole": ("lengths", ("554 5.3.4 | 250 2.0.0",)),
    "dsn: RET that is neither FULL nor HDRS": (
        "dsn",
        (
            "501 5.5.4 | 250 2.0.0",
            "501 5.5.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
        ),
    ),
    "dsn: ENVID that is no xtext": (
        "dsn",
        (
            "501 5.5.4 | 250 2.0.0",
            "501 5.5.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
        ),
    ),
    "dsn: ORCPT of 500 characters, and of one more": ("orcpt", ("250 2.1.5 | 553",)),
    "dsn: ORCPT that is no typed xtext": (
        "orcpt",
        (
            "553 | 250 2.1.5",
            "553 | 250 2.1.5",
            "553 | 250 2.1.5",
        ),
    ),
    "dsn: NEVER goes with nothing else": ("refused RCPT", ("250 2.1.5 | 553",)),
    "dsn: NOTIFY with unknown or missing words": (
        "dsn",
        (
            "501 5.5.4 | 250 2.1.5",
            "501 5.5.4 | 250 2.1.5",
            "501 5.5.4 | 250 2.1.5",
        ),
    ),
    "dsn: a parameter twice": (
        "dsn",
        (
            "501 5.5.4 | 250 2.0.0",
            "501 5.5.4 | 503 5.5.1",
            "250 2.0.0 | 503 5.5.1",
            "501 5.5.4 | 250 2.1.5",
            "501 5.5.4 | 250 2.1.5",
        ),
    ),
    "dsn: a broken recipient in a group does not touch the others": ("dsn", ("501 5.5.4 | 250 2.1.5",)),
    "errors: a bare CR": ("line ends", ("500 5.5.2 | 500 5.5.1",)),
    "errors: a bare LF is one refusal, and what follows it is no command": (
        "line ends",
        (
            "500 5.5.2 | 500 5.5.1",
            "250 2.0.0 | closed",
        ),
    ),
    "errors: a client that sends only LF is told at once": ("line ends", ("500 5.5.2 | 250",)),
    "errors: CR CR LF": ("line ends", ("500 5.5.2 | 500 5.5.1",)),
    "errors: NUL, tabs, escapes and eight-bit bytes": (
        "bytes",
        (
            "500 5.5.2 | 500 5.5.4",
            "500 5.5.2 | 500 5.5.1",
            "500 5.5.2 | 500 5.5.4",
            "500 5.5.2 | 501 5.5.4",
        ),
    ),
    "errors: a line of 2047 bytes is taken": ("noop", ("250 2.0.0 | 500 5.5.4",)),
    "errors: a line without an end ends the session": (
        "lengths",
        (
            "500 5.0.0 | silence",
            "closed | open",
        ),
    ),
    "filters: every phase in its order, and what it is told": ("ehlo", ("250 | 503 5.5.1",)),
    "limits: a command line of exactly the limit in pieces": ("noop", ("250 2.0.0 | 500 5.5.4",)),
    "pipelining: a broken line in a group keeps its place": ("bytes", ("500 5.5.2 | 501 5.1.3",)),
    "session: a repeated EHLO resets the transaction": (
        "ehlo",
        (
            "250 | 503 5.5.1",
            "503 5.5.1 | 250 2.1.5",
            "250 | 503 5.5.1",
        ),
    ),
    "session: NOOP with and without arguments, before and after EHLO": (
        "noop",
        (
            "250 2.0.0 | 500 5.5.4",
            "250 2.0.0 | 500 5.5.4",
        ),
    ),
    "states: HELO x after EHLO": ("ehlo", ("250 | 503 5.5.1",)),
    "states: EHLO x after EHLO": ("ehlo", ("250 | 503 5.5.1",)),
    "states: HELO x after MAIL": ("ehlo", ("250 | 503 5.5.1",)),
    "states: EHLO x after MAIL": ("ehlo", ("250 | 503 5.5.1",)),
    "states: HELO x after RCPT": ("ehlo", ("250 | 503 5.5.1",)),
    "states: EHLO x after RCPT": ("ehlo", ("250 | 503 5.5.1",)),
    "transaction: bad senders": ("path", ("553 5.1.0 | 503 5.5.4",)),
    "transaction: SIZE": (
        "SIZE",
        (
            "552 5.3.4 | 250 2.0.0",
            "552 5.3.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
        ),
    ),
    "utf8: commands other than MAIL and RCPT stay ASCII": (
        "bytes",
        (
            "500 5.5.2 | 501 5.5.4",
            "500 5.5.2 | 500 5.5.4",
            "500 5.5.2 | 503 5.5.1",
        ),
    ),
    "data: too big": ("size", ("554 5.3.4 | 250 2.0.0",)),
    "filters: a client refused at connect may only leave": ("refused", ("503 5.5.1 | 250 2.0.0",)),
    "limits: SIZE at the limit, above it, and absurd": (
        "SIZE",
        (
            "552 5.3.4 | 250 2.0.0",
            "552 5.3.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
            "501 5.5.4 | 503 5.5.1",
            "250 2.0.0 | 503 5.5.1",
        ),
    ),
    "limits: a message of the limit, and of a byte more": ("size", ("554 5.3.4 | 250 2.0.0",)),
    "transaction: TLS is required": ("530", ("530 5.7.0 | 530 5.5.1",)),
}
