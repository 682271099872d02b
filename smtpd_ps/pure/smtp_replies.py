"""What the SMTP server says: OpenSMTPD's codes and words (QUIRKS "SMTP"), CRLF included.

Runs in smtp. Texts that come from other processes or quote a client are made one clean line here.
"""

from smtpd_ps.pure.received import PROGRAM

OK = b"250 2.0.0 Ok\r\n"
RESET = b"250 2.0.0 Reset state\r\n"
BYE = b"221 2.0.0 Bye\r\n"
READY_FOR_TLS = b"220 2.0.0 Ready to start TLS\r\n"
AUTHENTICATED = b"235 2.0.0 Authentication succeeded\r\n"
SEND_RESPONSE = b"334 \r\n"
SEND_USER = b"334 VXNlcm5hbWU6\r\n"
SEND_PASSWORD = b"334 UGFzc3dvcmQ6\r\n"
SEND_MESSAGE = b'354 Enter mail, end with "." on a line by itself\r\n'
HELP = f"214-2.0.0 This is {PROGRAM}\r\n214 2.0.0 End of HELP info\r\n".encode()

UNRECOGNIZED = b"500 5.5.1 Invalid command: Command unrecognized\r\n"
NO_ARGUMENTS = b"500 5.5.4 Invalid command arguments: command does not accept arguments.\r\n"
NOT_PRINTABLE = b"500 5.5.2 Syntax error: Only printable ASCII and CRLF line ends are taken\r\n"
LINE_TOO_LONG = b"500 5.0.0 Command line too long\r\n"
NOT_NOW = b"503 5.5.1 Invalid command: Command not allowed at this point.\r\n"
HELO_WITHOUT_NAME = b"501 5.5.1 Invalid command: HELO requires domain name\r\n"
EHLO_WITHOUT_NAME = b"501 5.5.1 Invalid command: EHLO requires domain name\r\n"
BAD_HELO = b"501 5.5.4 Invalid command arguments: Invalid domain name\r\n"
NOT_SUPPORTED = b"503 5.5.1 Invalid command: Command not supported\r\n"
NO_JOKES = b"500 5.5.1 Invalid command: this feature is not supported yet ;-)\r\n"

SECURED_ALREADY = b"503 5.5.1 Invalid command: Channel already secured\r\n"
NO_PARAMETERS = b"501 5.5.4 Invalid command arguments: No parameters allowed\r\n"
PLAINTEXT_AFTER_STARTTLS = b"554 5.5.1 Invalid command: Nothing may follow STARTTLS before its reply\r\n"

AUTHENTICATED_ALREADY = b"503 5.5.1 Invalid command: Already authenticated\r\n"
PARAMETERS_MISSING = b"501 5.5.4 Invalid command arguments: No parameters given\r\n"
BAD_RESPONSE = b"501 5.5.2 Syntax error: Syntax error\r\n"
AUTH_FAILED = b"535 Authentication failed\r\n"
AUTH_STOPPED = b"454 4.7.0 Too many authentication failures from your address, try again later\r\n"
AUTH_UNAVAILABLE = b"454 4.7.0 Temporary authentication failure\r\n"

STARTTLS_FIRST = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
AUTH_FIRST = b"530 5.7.0 Must issue an AUTH command first\r\n"
SENDER_REJECTED = b"530 Sender rejected\r\n"
BAD_SENDER = b"553 5.1.0 Sender address syntax error\r\n"
TOO_MANY_MAILS = b"452 4.5.3 Too many recipients: Too many messages sent\r\n"
BAD_SIZE = b"501 5.5.4 Invalid command arguments: SIZE is a number of bytes\r\n"
BAD_RET = b"501 5.5.4 Invalid command arguments: RET is FULL or HDRS\r\n"
BAD_ENVID = b"501 5.5.4 Invalid command arguments: ENVID is xtext\r\n"
ENVID_TOO_LONG = b"503 5.5.4 Invalid command arguments: option too large, truncated: ENVID\r\n"
SENDER_NEEDS_UTF8 = b"553 5.6.7 Sender address needs SMTPUTF8\r\n"
OPTION_TWICE = b"501 5.5.4 Invalid command arguments: Option given twice\r\n"
SIZE_TOO_BIG = b"552 5.3.4 Message too big for system\r\n"
NO_MESSAGE_ID = b"451 4.3.0 Temporary failure, try again\r\n"

BAD_RECIPIENT = b"501 5.1.3 Recipient address syntax error\r\n"
RECIPIENT_NEEDS_UTF8 = b"553 5.6.7 Recipient address needs SMTPUTF8\r\n"
BAD_NOTIFY = b"501 5.5.4 Invalid command arguments: NOTIFY is NEVER, or of SUCCESS, FAILURE and DELAY\r\n"
NOTIFY_NEVER = b"553 NOTIFY option NEVER cannot be combined with other options\r\n"
BAD_ORCPT = b"553 ORCPT address syntax error\r\n"
TOO_MANY_RECIPIENTS = b"451 4.5.3 Too many recipients: Too many recipients\r\n"
NO_RECIPIENT = b"503 5.5.4 Invalid command arguments: No recipient specified\r\n"

BAD_CHUNK = b"501 5.5.4 Invalid command arguments: BDAT needs a number of bytes, and LAST at the end\r\n"
BARE_LINE_END = b"550 5.6.11 Bare CR or LF in message\r\n"
NUL_BYTE = b"550 5.6.0 NUL byte in message\r\n"
DATA_LINE_TOO_LONG = b"500 5.0.0 Line too long\r\n"
TOO_BIG = b"554 5.3.4 Message too big for system: Transaction failed, message too big\r\n"
HEADER_TOO_BIG = b"554 5.3.4 Message too big for system: Header too big\r\n"
LOOP = b"500 5.4.6 Routing loop detected: Loop detected\r\n"
BAD_MESSAGE = b"550 5.7.1 Delivery not authorized, message refused: Message is not RFC 2822 compliant\r\n"
FILTER_BROKEN = b"421 4.3.0 Internal server error\r\n"
NO_ROOM = b"452 4.3.1 Mail system full\r\n"

TOO_MANY_ERRORS = b"421 4.7.0 Too many errors\r\n"
TOO_MANY_IDLE = b"421 4.7.0 Too many commands without a message\r\n"
TOO_MANY_AUTH = b"421 4.7.0 Too many authentication failures\r\n"
TOO_SLOW = b"421 4.4.2 Message too slow\r\n"
IDLE = b"421 4.4.2 Timeout\r\n"
CLOSING = b"421 4.3.2 Service shutting down\r\n"
TOO_BUSY = b"421 4.3.2 Too many connections, try again later\r\n"

MAX_TEXT = 480  # RFC 5321 4.5.3.1.5 bounds a reply line to 512 bytes


def reply(code: int, text: str) -> bytes:
    """One reply line. Whatever `text` holds, the line is printable ASCII and bounded."""
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    return f"{code} {text[:MAX_TEXT]}\r\n".encode("ascii")


def quoted(text: str) -> str:
    """`text` for the inside of double quotes in a log line."""
    return text.replace("\\", "\\\\").replace('"', '\\"') if '"' in text or "\\" in text else text
