"""What a filter hears otherwise from us than from OpenSMTPD 6.8, and why. Each kind stands in DIFFERENCES.md."""

NOT_IN_6_8 = ("report protocol-server|250-PIPELINING", "report protocol-server|250-SMTPUTF8")

# Sessions whose messages look otherwise to the filter.
OTHER_LINES = {
    "too big": "nothing is passed on of what the limit forbids; 6.8 passes it on and drops it afterwards",
    "gone in the message": "what has come is passed on in blocks, and a program is sent the end that does not come",
    "EHLO in a transaction": "Received names the second EHLO",
    "a refused recipient": "Received names the recipient that was taken",
}
_AGAIN = "HELO or EHLO again is taken, and resets (RFC 5321 4.1.4)"

# By session: why, and what ours has instead: "- theirs", "+ ours".
DIFFERENT: dict[str, tuple[str, tuple[str, ...]]] = {
    "too big by SIZE": (
        "SIZE= is checked at MAIL",
        (
            "+ report protocol-server|552 5.3.4 Message too big for system",
            "+ report protocol-client|MAIL FROM:<a@client.test>",
            "+ filter mail-from|a@client.test",
            "+ report filter-response|mail-from|proceed",
            "- report protocol-client|MAIL FROM:<a@client.test>",
            "- report protocol-server|503 5.5.1 Invalid command: Command not allowed at this point.",
            "- report tx-mail|M|permfail|a@client.test",
        ),
    ),
    "a bad parameter": (
        "there is no message id yet, and no transaction to tell of",
        ("- report tx-mail|M|permfail|a@client.test",),
    ),
    "EHLO in a transaction": (
        _AGAIN,
        (
            "- report protocol-server|503 5.5.1 Invalid command: Already identified",
            "+ filter ehlo|again.test",
            "+ report filter-response|ehlo|proceed",
            "+ report tx-rollback|M",
            "+ report tx-reset|M",
            "+ report link-identify|EHLO|again.test",
            "+ report protocol-server|250-mx.test Hello again.test [127.0.0.1], pleased to meet you",
            "+ report protocol-server|250-8BITMIME",
            "+ report protocol-server|250-ENHANCEDSTATUSCODES",
            "+ report protocol-server|250-SIZE 5000",
            "+ report protocol-server|250-DSN",
            "+ report protocol-server|250 HELP",
            "- report protocol-server|503 5.5.1 Invalid command: Command not allowed at this point.",
            "+ filter mail-from|a@client.test",
            "+ report filter-response|mail-from|proceed",
            "+ report protocol-server|250 2.0.0 Ok",
            "+ report tx-begin|M",
            "- report tx-mail|M|permfail|a@client.test",
            "+ report tx-mail|M|ok|a@client.test",
        ),
    ),
    "EHLO twice": (
        _AGAIN,
        (
            "- report protocol-server|503 5.5.1 Invalid command: Already identified",
            "+ filter ehlo|again.test",
            "+ report filter-response|ehlo|proceed",
            "+ report link-identify|EHLO|again.test",
            "+ report protocol-server|250-mx.test Hello again.test [127.0.0.1], pleased to meet you",
            "+ report protocol-server|250-8BITMIME",
            "+ report protocol-server|250-ENHANCEDSTATUSCODES",
            "+ report protocol-server|250-SIZE 5000",
            "+ report protocol-server|250-DSN",
            "+ report protocol-server|250 HELP",
        ),
    ),
    "HELO after EHLO": (
        _AGAIN,
        (
            "- report protocol-server|503 5.5.1 Invalid command: Already identified",
            "+ filter helo|again.test",
            "+ report filter-response|helo|proceed",
            "+ report link-identify|HELO|again.test",
            "+ report protocol-server|250 mx.test Hello again.test [127.0.0.1], pleased to meet you",
        ),
    ),
    "HELP and NOOP": (
        "no address for reports of bugs; NOOP takes words (RFC 5321 4.1.1.9), and 7.8 takes them",
        (
            "- report protocol-server|214-2.0.0 To report bugs in the implementation, please contact bugs@openbsd.org",
            "- report protocol-server|214-2.0.0 with full details",
            "- report protocol-server|500 5.5.4 Invalid command arguments: command does not accept arguments.",
            "+ filter noop|with words",
            "+ report filter-response|noop|proceed",
            "+ report protocol-server|250 2.0.0 Ok",
        ),
    ),
}
