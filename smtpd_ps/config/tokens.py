"""The tokens of smtpd.conf and its reserved words.

Runs in the parent and in `smtpd_ps -n`; the words are those of OpenSMTPD 7.8 (parse.y, lookup).
"""

from dataclasses import dataclass
from enum import Enum, auto

from smtpd_ps.config.model import Where


class Kind(Enum):
    """What a token is."""

    WORD = auto()  # a value, quoted or not
    KEYWORD = auto()  # a reserved word without quotes
    NUMBER = auto()
    PUNCTUATION = auto()  # one character, or =>
    NEWLINE = auto()
    END = auto()  # of the file


# A reserved word has to be quoted to stand for a value, whether or not its feature works yet.
KEYWORDS: frozenset[str] = frozenset(
    """
    action admd alias any auth auth-optional backup bounce bypass ca cert chain chroot ciphers commit
    compression connect data data-line dhe disconnect domain ehlo encryption expand-only fcrdns filter
    for forward-only from group helo helo-src host hostname hostnames include inet4 inet6 junk key
    limit listen lmtp local mail-from maildir mask-src masquerade match max-deferred max-message-size
    mbox mda mta mx no-dsn no-verify noop on phase pki port proc proc-exec protocols proxy-v2 queue
    quit rcpt-to rdns received-auth recipient regex reject relay report rewrite rset scheduler senders
    smtp smtp-in smtp-out smtps socket src srs sub-addr-delim table tag tagged tls tls-require ttl user
    userbase verify virtual warn-interval wrapper
    """.split()  # noqa: SIM905 - a list of literals would be three times as long
)


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `number` is the value of a NUMBER."""

    kind: Kind
    text: str
    where: Where
    quoted: bool = False
    number: int = 0

    @property
    def found(self) -> str:
        """The words for this token after `found` in a message."""
        match self.kind:
            case Kind.WORD:
                return f'"{self.text}"'
            case Kind.KEYWORD:
                return f'the keyword "{self.text}"'
            case Kind.NUMBER:
                return f"the number {self.text}"
            case Kind.PUNCTUATION if self.text == "\r":
                return "a carriage return (lines end with a line feed alone)"
            case Kind.PUNCTUATION:
                return f'"{self.text}"'
            case Kind.NEWLINE:
                return "the end of the line"
            case Kind.END:
                return "the end of the file"


class SyntaxProblem(Exception):
    """The rest of the statement cannot be understood. Caught by the parser, which goes on."""

    def __init__(self, where: Where, text: str) -> None:
        super().__init__(text)
        self.where = where
        self.text = text
