"""Scripted sessions for filters: what a client says to Debian's OpenSMTPD and to us.

A text is a line, after which the client waits for the reply. A tuple is sent at once, and so many replies are
waited for. MAIL is a message and its end. GONE closes the connection without QUIT.
PIPELINED is said to us alone: 6.8 closes such a session.
"""

GONE = None
Step = str | tuple[str, ...] | None

MAIL = "Subject: x\r\nFrom: <a@client.test>\r\n\r\nhello\r\n."
EHLO, FROM, TO, DATA, QUIT = "EHLO client.test", "MAIL FROM:<a@client.test>", "RCPT TO:<b@ours.test>", "DATA", "QUIT"
OPEN = (EHLO, FROM, TO)
ALL = (FROM, TO, DATA, MAIL)

SESSIONS: dict[str, tuple[Step, ...]] = {
    "plain": (*OPEN, DATA, MAIL, QUIT),
    "helo": ("HELO client.test", *ALL, QUIT),
    "lower case": ("ehlo client.test", "mail from:<a@client.test>", "rcpt to:<b@ours.test>", "data", MAIL, "quit"),
    "several recipients": (*OPEN, "RCPT TO:<c@ours.test>", "RCPT TO:<d@ours.test>", DATA, MAIL, QUIT),
    "two recipients": (*OPEN, "RCPT TO:<c@ours.test>", DATA, MAIL, QUIT),
    "a recipient twice": (*OPEN, TO, DATA, MAIL, QUIT),
    "a recipient that becomes three": (EHLO, FROM, "RCPT TO:<three@list.test>", DATA, MAIL, QUIT),
    "a refused recipient": (*OPEN, "RCPT TO:<b@elsewhere.test>", DATA, MAIL, QUIT),
    "none but refused recipients": (EHLO, FROM, "RCPT TO:<b@elsewhere.test>", DATA, QUIT),
    "RSET": (*OPEN, "RSET", QUIT),
    "RSET after MAIL": (EHLO, FROM, "RSET", QUIT),
    "RSET without a transaction": (EHLO, "RSET", QUIT),
    "RSET, then a mail": (*OPEN, "RSET", *ALL, QUIT),
    "QUIT in a transaction": (*OPEN, QUIT),
    "QUIT after MAIL": (EHLO, FROM, QUIT),
    "QUIT at once": (QUIT,),
    "gone at once": (GONE,),
    "gone after EHLO": (EHLO, GONE),
    "gone in a transaction": (*OPEN, GONE),
    "gone in the message": (*OPEN, DATA, ("Subject: x\r\n\r\nhalf\r\n",), GONE),
    "gone after a mail": (*OPEN, DATA, MAIL, GONE),
    "two mails": (*OPEN, DATA, MAIL, *ALL, QUIT),
    "a mail, then RSET": (*OPEN, DATA, MAIL, "RSET", QUIT),
    "an empty message": (*OPEN, DATA, ".", QUIT),
    "no body": (*OPEN, DATA, "Subject: x\r\nFrom: <a@client.test>\r\n\r\n.", QUIT),
    "dots": (*OPEN, DATA, "Subject: x\r\n\r\n..\r\n..one\r\n...two\r\na.b\r\n.", QUIT),
    "pipes": (*OPEN, DATA, "Subject: a|b\r\n\r\n|c|d|\r\n.", QUIT),
    "no header": (*OPEN, DATA, "just text\r\n.", QUIT),
    "a long line": (*OPEN, DATA, f"Subject: x\r\n\r\n{'y' * 990}\r\n.", QUIT),
    "too big": (*OPEN, DATA, "Subject: x\r\n\r\n" + f"{'z' * 98}\r\n" * 60 + ".", QUIT),
    "too big by SIZE": (EHLO, "MAIL FROM:<a@client.test> SIZE=99999", FROM, QUIT),
    "SIZE and BODY": (EHLO, "MAIL FROM:<a@client.test> SIZE=100 BODY=8BITMIME", TO, DATA, MAIL, QUIT),
    "a bad parameter": (EHLO, "MAIL FROM:<a@client.test> FOO=bar", QUIT),
    "EHLO in a transaction": (*OPEN, "EHLO again.test", *ALL, QUIT),
    "EHLO twice": (EHLO, "EHLO again.test", QUIT),
    "HELO after EHLO": (EHLO, "HELO again.test", QUIT),
    "EHLO without a name": ("EHLO", EHLO, QUIT),
    "EHLO with an address": ("EHLO [127.0.0.1]", QUIT),
    "EHLO with a bad name": ("EHLO bad(name", EHLO, QUIT),
    "HELP and NOOP": (EHLO, "HELP", "NOOP", "NOOP with words", QUIT),
    "unknown commands": (EHLO, "WHAT", "VRFY a", "EXPN list", QUIT),
    "the null sender": (EHLO, "MAIL FROM:<>", TO, DATA, MAIL, QUIT),
    "MAIL before EHLO": (FROM, QUIT),
    "RCPT before MAIL": (EHLO, TO, QUIT),
    "DATA before MAIL": (EHLO, DATA, QUIT),
    "DATA without recipients": (EHLO, FROM, DATA, QUIT),
    "MAIL twice": (EHLO, FROM, FROM, QUIT),
    "a bad sender": (EHLO, "MAIL FROM:<a@@b>", FROM, QUIT),
    "a bad recipient": (EHLO, FROM, "RCPT TO:<b@@c>", TO, QUIT),
    "MAIL without FROM": (EHLO, "MAIL", QUIT),
    "an address without brackets": (EHLO, "MAIL FROM:a@client.test", QUIT),
    "a space before the address": (EHLO, "MAIL FROM: <a@client.test>", "RCPT TO: <b@ours.test>", DATA, MAIL, QUIT),
    "a bare sender": (EHLO, "MAIL FROM:<anna>", TO, DATA, MAIL, QUIT),
    "a bare recipient": (EHLO, FROM, "RCPT TO:<anna>", QUIT),
    "the name of a refused recipient in capitals": (EHLO, FROM, "RCPT TO:<B@ELSEWHERE.TEST>", QUIT),
    "STARTTLS that is not offered": (EHLO, "STARTTLS", QUIT),
    "AUTH that is not offered": (EHLO, "AUTH PLAIN", QUIT),
}  # fmt: skip
PIPELINED: dict[str, tuple[Step, ...]] = {  # by the session that says the same line by line
    "two recipients": (EHLO, (FROM, TO, "RCPT TO:<c@ours.test>", DATA), MAIL, QUIT),
    "a refused recipient": (EHLO, (FROM, TO, "RCPT TO:<b@elsewhere.test>", DATA), MAIL, QUIT),
}
