"""Strategies: valid texts of smtpd.conf, drawn from its grammar."""

from hypothesis import strategies as st

# What may stand between double quotes, written as in the file.
_QUOTED = ["a", "B", "7", " ", "\t", "\\ ", "\\\t", '\\"', "'", "\\a", "\\\\x", "\\\n", "\n", "$x", "#", "{", ",", "é",
           "any", "=", "<", "\u2028"]  # fmt: skip
_BARE = ["lo", "x.example", "any2", "25x", "a@b", "file:/x", "a\\/b", "::1", "x$y", "k\\\\", "_"]
ADDRESSES = ["192.0.2.0/24", "::1", '"[2001:db8::1]"', '"local"', '"10.1.2.3"']
_DELAYS = ["1s", "90s", "5m", "36h", "4d", '"400d"']


@st.composite
def quoted(draw: st.DrawFn) -> str:
    """A value in quotes that is neither empty nor blank."""
    pieces = draw(st.lists(st.sampled_from(_QUOTED), max_size=6))
    return f'"v{"".join(pieces)}{draw(st.sampled_from(["", "", chr(92) * 2 + chr(10)]))}"'


@st.composite
def plain(draw: st.DrawFn) -> str:
    """A value without blanks."""
    bare = ["a", "b", '"any"', '"25"', '"tag"', "'q\"'", "x.example", '"@"', '"é"', '"a\\b"']
    return draw(st.sampled_from(bare))


value = st.one_of(quoted(), st.sampled_from(_BARE), plain())
separator = st.sampled_from([", ", ",\n ", " ", "\n", ",\n\n"])


@st.composite
def braces(draw: st.DrawFn, keyed: bool, of: st.SearchStrategy[str] = value) -> str:
    """A list or a mapping in braces, in any layout."""
    text = draw(st.sampled_from(["{", "{ ", "{\n\n"]))
    for index in range(draw(st.integers(1, 6))):
        text += draw(separator) if index else ""
        text += draw(of)
        if keyed:
            text += draw(st.sampled_from(["=", " = ", " => "])) + draw(value)
    return text + draw(st.sampled_from([" }", "\n}"]))


def options(*choices: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Some of the options, each at most once, in any order."""

    @st.composite
    def build(draw: st.DrawFn) -> str:
        order = draw(st.permutations(range(len(choices))))
        return " ".join(draw(choices[index]) for index in order[: draw(st.integers(0, len(choices)))])

    return build()


def after(keyword: str, of: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """`keyword VALUE`."""
    return of.map(lambda text: f"{keyword} {text}")


def either(*texts: str) -> st.SearchStrategy[str]:
    """One of these texts."""
    return st.sampled_from(texts)


_LISTS = st.one_of(value, braces(False), either("<names>", "<$names>", '<"tag">', "<file>", "<made_list>"))
_KEYED = st.one_of(_LISTS, braces(True), either("<pairs>"))
_PAIRS = st.one_of(braces(True), either("<pairs>", "<keyed>", "<made>"))
_CREDENTIALS = either("<keyed>", '{ l = "bob:secret" }', '{ l = secret, "m" => "a:b:c" }')
_PATTERN = either('"^[a-z]+$"', '"(?i)[[:alpha:]]\\\\."', "x", '"a{2,}|b"', '"\\$"')
_PATTERNS = st.one_of(_PATTERN, braces(False, _PATTERN), either("<names>", "<file>"))
_SOURCES = st.one_of(st.sampled_from(ADDRESSES), braces(False, st.sampled_from(ADDRESSES)), either("<file>"))

PREAMBLE = """\
names = names
nic = "if0 port 26"
unused = x
include "/inc"
table names { a, "b c" }
table "tag" { any2 }
table pairs { k = v, "k 2" => "" }
table file file:/f
table keyed file:/g
table made "db:/g b.db"
table made_list db:/h.db
table asked ldap:/i
table plain ldap
table ran "proc-exec:/usr/libexec/t -c /k 'a b'"
table people getpwnam
table "from" static:/t
pki mx.example cert "/c" key "/k"
pki "*" key "/k 2"
pki "*" cert "/c2" dhe none
pki mx.example dhe AUTO
ca roots cert "/roots"
filter "f1" phase connect match !rdns disconnect "550 no name"
filter f2 phase mail-from match mail-from regex "^x" junk
proc "p 1" "filter-x -a" user u group g chroot "/r"
filter p3 proc "p 1" on-failure accept
filter p4 proc-exec "/x '$y'" user u on-failure tempfail
admd here.example
filter "chain" chain { f1, f2 }
srs key "before"
action first relay
"""

_GLOBALS = st.one_of(
    st.integers(1, 10**9).map(lambda n: f"smtp limit max-mails {n} max-rcpt 7"),
    after("smtp max-message-size", either("0", "35M", "1.5k", "77")),
    after("smtp sub-addr-delim", either('"+"', '"-"', "'\"'", '"\\\\\n"', "_", '"#"')),
    after("smtp ciphers", either("HIGH", '"HIGH:!aNULL"', '"ECDHE+AESGCM -SHA1"')),
    after("queue ttl", either(*_DELAYS)),
    after("mta max-deferred", either("0", "7")),
    after("srs", either('key "a b\\""', "key backup x", "ttl 1d", "ttl 36h")),
    either("queue compression", "queue encryption", 'queue encryption "-"'),
    either("queue encryption stdin", 'queue encryption "0123456789 abcdef0123456789 abc\\""'),
    after("bounce warn-interval", st.lists(either(*_DELAYS), min_size=1, max_size=4).map(" , ".join)),
    either(
        "mta limit max-conn-per-host 3 session-keepalive 0 task-hiwat 9",
        "mta limit for domain a.example max-conn-per-domain 2 inet6",
        "mta limit for domain b.example max-mails-per-minute 30",
        "mta limit inet4",
        "mda limit max-session 1 max-session-per-user 3 task-hiwat 5",
        "scheduler limit max-inflight 77 max-schedule 4",
        "listen on socket",
        "listen on socket mask-src tag t no-dsn",
    ),
)


_PLACES = ("$nic", "lo inet4", "egress inet6 port submission", "203.0.113.7 port smtps", "lo inet6 port 24",
           '"mx.example.org"')  # fmt: skip
_FILTER = either(
    "filter f1", 'filter "chain"', "filter { f2, f1 }", "filter {\nf1\n}", "filter { p4, f1, p3 }", "filter p3"
)
_TAG = either("tag t", "tag '\"'", 'tag "any"')
_TABLES = st.one_of(
    either('hostnames { "192.0.2.9" = h.example, "[::1]" => "[192.0.2.1]" }', "hostnames <keyed>"),
    either('senders { bob = "bob@a.example, @b.example", root => "@" }', "senders <keyed> masquerade"),
)
_FLAGS = either("mask-src", "no-dsn received-auth", "received-auth mask-src", "proxy-v2",
                "proxy-v2 from { 192.0.2.1, 10.0.0.0/8 }", "proxy-v2 from 192.0.2.1")  # fmt: skip
_TLS_WORDS = either("protocols TLSv1.2", 'protocols "all:!tlsv1.2"', 'ciphers "HIGH:!aNULL"', "ca roots")
_HOSTNAME = either("hostname h.example", 'hostname "[::1]"', "hostname mail.example.org")


@st.composite
def listeners(draw: st.DrawFn) -> str:
    """A listener on each of some places, which share no address."""
    text = ""
    for place in draw(st.lists(st.sampled_from(_PLACES), unique=True)):
        encrypted = options(
            either('pki "*"'),
            st.one_of(either("auth", "auth-optional"), after("auth", _PAIRS)),
            _TAG,
            _HOSTNAME,
            _FILTER,
            _TABLES,
            _FLAGS,
            _TLS_WORDS,
        )
        mode = draw(either("", "tls", "tls-require", "tls-require verify", "smtps", "smtps verify"))
        plain = options(_TAG, _HOSTNAME, _FLAGS, _FILTER)
        rest = f"{mode} pki MX.example {draw(encrypted)}" if mode else draw(plain)
        text += f"listen on {place} {rest}\n"
    return text


_LOCAL = st.one_of(
    either("mbox", "expand-only", "forward-only", "maildir", "maildir Mail",
           'maildir "/m/%{user.username}"', 'maildir "~/a b"', "lmtp localhost",
           'lmtp "/run/l,m" rcpt-to', 'lmtp "[IPv6:::1]:24"', "maildir junk",
           "maildir Mail junk", 'mda "sort -a %{dest.user[0:4]:lowercase} %%"', "mda cat", 'mda "a \\"b\\" $x"')
)  # fmt: skip
_TABLES_OF_USERS = either("", "userbase <people>", 'userbase { bob = "1000:100:/home/b c" }')
_EXPANSION = st.tuples(st.one_of(after("alias", _PAIRS), after("virtual", _PAIRS), either("")), _TABLES_OF_USERS)
_RELAY = st.one_of(
    st.just("relay"),
    options(
        either("tls", "tls no-verify"), either("pki mx.example", "pki MX.example"),
        either("helo h.example", 'helo "[::1]"'),
        either("mail-from a@b.example", 'mail-from "@b.example"'),
        either("ca roots", "ca ROOTS"), either("protocols tlsv1.3", 'protocols "all:!TLSv1.3"'),
        either("filter p3", "filter { p4, p3 }", 'filter "chain"'),
        either("srs"), either("ciphers HIGH", 'ciphers "ECDHE+AESGCM -SHA1"'),
        either("src ::1", "src <file>", 'src { "192.0.2.1", "[::1]" }'),
        either("helo-src <keyed>", 'helo-src { "[::1]" = x.example }'),
        either("backup", "backup mx b.example", "domain <keyed>", 'domain { "b" = "smtp://c:26", x = "smtps://b" }'),
    ).map("relay {}".format),
    after("relay host smtps://l@mx.example auth", _CREDENTIALS),
    either("relay host a backup host b", 'relay host { a, b } tls backup host { "smtps://c", smtp://a }'),
    either('relay host { "smtp://a", b } tls', "relay host mx.example", "relay host <hosts>",
           "relay host <file>"),
)  # fmt: skip


@st.composite
def _conditions(draw: st.DrawFn) -> str:
    source = st.one_of(
        either("from any", "from local", "from socket", "from auth", "from rdns"),
        after("from rdns", _LISTS), after("from rdns regex", _PATTERNS),
        after("from auth", _LISTS), after("from src", _SOURCES), after("from mail-from", _KEYED),
        after("from src regex", _PATTERNS), after("from auth regex", _PATTERNS),
        after("from mail-from regex", _PATTERNS),
    )  # fmt: skip
    target = st.one_of(
        either("for any", "for local"), after("for domain", _LISTS), after("for rcpt-to", _KEYED),
        after("for domain regex", _PATTERNS), after("for rcpt-to regex", _PATTERNS),
    )  # fmt: skip
    helo = st.one_of(after("helo", _LISTS), after("helo regex", _PATTERNS))
    chosen = draw(options(source, target, helo, after("tag", _LISTS), either("tls")))
    for word in ("auth", "mail-from", "rcpt-to"):
        if draw(st.booleans()) and f"from {word}" not in chosen and f"for {word}" not in chosen:
            chosen += f" {draw(either('', '!', '! '))}{word} {draw(st.one_of(_KEYED, after('regex', _PATTERNS)))}"
    return chosen


@st.composite
def _filter(draw: st.DrawFn, name: str) -> str:
    """A builtin filter: a condition that the phase has, and a decision."""
    client = st.one_of(
        either("fcrdns", "rdns", 'dnsbl "bl.example.org"'), after("rdns", _LISTS), after("rdns regex", _PATTERNS),
        after("src", _SOURCES), after("src regex", _PATTERNS), after("dnsbl", either("{ a.example, b.example }")),
    )  # fmt: skip
    greeted = st.one_of(client, after("helo", _LISTS), after("helo regex", _PATTERNS))
    sender = st.one_of(
        greeted, either("auth"), after("auth", _LISTS), after("auth regex", _PATTERNS), after("mail-from", _KEYED),
        after("mail-from regex", _PATTERNS),
    )  # fmt: skip
    recipient = st.one_of(sender, after("rcpt-to", _KEYED), after("rcpt-to regex", _PATTERNS))
    phase = draw(either("connect", "helo", "ehlo", "mail-from", "rcpt-to", "data", "commit"))
    condition = draw({"connect": client, "helo": greeted, "ehlo": greeted, "rcpt-to": recipient}.get(phase, sender))
    decisions = ['reject "550 no"', 'disconnect "421 \\"no\\""', 'report "a b"']
    decisions += ["junk", "bypass"] if phase != "commit" else []
    decisions += ["rewrite h.example"] if phase in ("helo", "ehlo") else []
    decisions += ['rewrite "<a@b.example>"'] if phase in ("mail-from", "rcpt-to") else []
    return f"filter {name} phase {phase} match {draw(either('', '!'))}{condition} {draw(st.sampled_from(decisions))}"


@st.composite
def configuration_texts(draw: st.DrawFn) -> str:
    """A whole configuration; it includes /inc."""
    text = PREAMBLE + 'table hosts { "smtp://h1:26", h2 }\n'
    text += "".join(f"{line}\n" for line in draw(st.lists(_GLOBALS, max_size=4, unique_by=lambda line: line[:9])))
    text += "".join(f"{draw(_filter(f'g{index}'))}\n" for index in range(draw(st.integers(0, 3))))
    text += 'mda wrapper w "nice %{mda}"\nmda wrapper "a wrapper" "x \'%{sender}\' %{mda} | y"\n'
    text += draw(listeners())
    names = ["first"]
    for index in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from([f"a{index}", f'"any {index}"', f'"{index}"']))
        names.append(name)
        method = draw(st.one_of(_RELAY, st.tuples(_LOCAL, _EXPANSION.map(" ".join)).map(" ".join)))
        user = draw(either("", "user vmail", 'user "any"')) if method.startswith(("maildir", "lmtp", "mda")) else ""
        wrapped = draw(either("", "wrapper w", 'wrapper "a wrapper"')) if method.startswith(("mda", "maildir")) else ""
        text += f"action {name} {method} {user} {wrapped} {draw(either('', 'ttl 2d', 'ttl 90m'))}\n"
    for _ in range(draw(st.integers(1, 4))):
        target = draw(st.sampled_from(["reject", *(f"action {name}" for name in names)]))
        text += f"match {draw(_conditions())} {target}\n"
    return text
