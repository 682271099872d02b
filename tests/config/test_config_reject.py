"""config/load: what is refused, with the exact words; actions and rules are in test_config_reject_rules."""

import pytest

RULE = "match from any for any reject\n"
PKI = 'pki p cert "/c" key "/k"\n'

SYNTAX = [
    ("lisen on lo", '1: expected a directive or a macro, found "lisen"; did you mean "listen"?'),
    ("tls", '1: expected a directive or a macro, found the keyword "tls"'),
    ("25", "1: expected a directive or a macro, found the number 25"),
    ("{", '1: expected a directive or a macro, found "{"'),
    ("table t \r", '1: expected a path in quotes, file:/path or "{" on the same line, '
     "found a carriage return (lines end with a line feed alone)"),
    ("listen lo", '1: expected "on", found "lo"'),
    ("listen on", "1: expected an interface, an address or a host name, found the end of the line"),
    ("listen on any",
     '1: expected an interface, an address or a host name, found the keyword "any"; quote it to use it as a value'),
    ("listen on $nic", '1: macro "nic" is not defined'),
    ("listen on ${nic}", '1: expected the name of a macro after "$" (letters, digits and _)'),
    ('listen on "lo', "1: the quote that starts here is not closed before the end of the file"),
    ("a = 5", "1: expected the value of the macro, found the number 5; quote it to use it as text"),
    ("a =\n", "1: expected the value of the macro, found the end of the line"),
    ("a = b c", '1: expected the end of the line, found "c"'),
    ('"a b" = c', "1: the name of a macro has no blanks"),
    ('port = "25"', '1: expected a directive or a macro, found the keyword "port"'),
    ("include x.conf", '1: the path of a file to include must start with "/": "x.conf"'),
    ("include 5",
     "1: expected the path of a file to include, found the number 5; quote it to use it as text"),
]  # fmt: skip

TABLE = [
    ("table t /x", '1: expected a path in quotes, file:/path or "{" on the same line, found "/"'),
    ("table t", '1: expected a path in quotes, file:/path or "{" on the same line, found the end of the line'),
    (
        "table t file:x",
        '1: expected a path that starts with "/", file:/path, type:/path or values in braces, found "file:x"',
    ),
    ("table t db", '1: expected a path that starts with "/", file:/path, type:/path or values in braces, found "db"'),
    (
        "table t db:t.db",
        '1: expected a path that starts with "/", file:/path, type:/path or values in braces, found "db:t.db"',
    ),
    (
        "table t ldap:etc/mail/t",
        '1: expected a path that starts with "/", file:/path, type:/path or values in braces, found "ldap:etc/mail/t"',
    ),
    (
        'table t "a/b"',
        '1: expected a path that starts with "/", file:/path, type:/path or values in braces, found "a/b"',
    ),
    ("table t proc:/x", "1: a program is named by its own type, such as ldap:/path, or by proc-exec:command"),
    ('table t "proc-exec:"', "1: the command is empty"),
    (
        'table "a|b" ldap:/x',
        '1: the name of a table that a program answers for may not have "|" or control characters in it',
    ),
    (
        "table t ldap:/x\naction a relay host x backup host <t>",
        '2: backup host takes no table of a program, which "t" is',
    ),
    (
        'table t ldap:/x\nfilter f phase connect match dnsbl <t> reject "550 x"',
        '2: dnsbl takes no table of a program, which "t" is',
    ),
    ("table t getpwnam:/x", "1: getpwnam asks the system and takes no path"),
    ("table t getpwnam:", "1: getpwnam asks the system and takes no path"),
    (
        "table t getpwnam\nmatch for domain <t> reject",
        '2: table "t" knows the users of the system, and cannot be used for for domain',
    ),
    ("table t {1,2}", "1: expected a value, found the number 1; quote it to use it as text"),
    ("table t {}", '1: expected a value, found "}"'),
    ("table t { a, }", '1: expected a value, found "}"'),
    ("table t { , a }", '1: expected a value, found ","'),
    ("table t { a,, b }", '1: expected a value, found ","'),
    ("table t { a\n, b }", '2: expected a value, a comma or "}", found ","'),
    ("table t { a = b, c }", '1: values and "key = value" cannot be mixed in one table: "c"'),
    ("table t { a, b = c }", '1: values and "key = value" cannot be mixed in one table: "b"'),
    ("table t { a =\nb }", "1: expected the value of the key, found the end of the line"),
    ("table t { a\n= b }", '2: expected a value or "}" ("=" stands on the line of its key), found "="'),
    ("table t { any }", '1: expected a value, found the keyword "any"; quote it to use it as a value'),
    ("table t { @a }", '1: expected a value, found "@"; a value that starts with "@" must be quoted'),
    ("table t { a", '1: expected a value, a comma or "}", found the end of the file'),
    ("table t { a } b", '1: expected the end of the line, found "b"'),
    ("table list { c }", '4: table "list" is already declared at CONF:1'),
    ('table "" { c }', "1: the name of a table may not be empty"),
    ('table "<dynamic:0001>" { c }', '1: the name of a table may not start with "<"'),
    (f"table t {{ {'k' * 1024} }}", "1: a value is longer than 1023 bytes"),
]

PKI_AND_CA = [
    ("pki p", ['1: pki "p" has no cert', '1: pki "p" has no key']),
    ('pki p cert "/c"', '1: pki "p" has no key'),
    ('pki p cert "c" key "/k"', '1: the path of a certificate must start with "/": "c"'),
    ('pki p cert "/c" cert "/d" key "/k"', '1: pki "p" already has a cert'),
    ('pki p cert "/c" key "/k"\npki P key "/l"', '2: pki "p" already has a key'),
    ('pki "a b" cert "/c" key "/k"',
     ['1: the name of a pki has no blanks: "a b"',
      '1: the name of a pki must be a host name or "*": "a b"']),
    ('pki a..b cert "/c" key "/k"', '1: the name of a pki must be a host name or "*": "a..b"'),
    ('pki p dhe auto cert "/c" key "/k" dhe none', '1: pki "p" already has a dhe'),
    ('pki p dhe', "1: expected none, legacy, auto, found the end of the line"),
    ('ca c cert "rel"', '1: the path of a certificate bundle must start with "/": "rel"'),
    ('ca c cert "/a"\nca C cert "/b"', '2: ca "c" is already declared at CONF:1'),
    ('pki p dhe maybe cert "/c" key "/k"', '1: expected none, legacy, auto, found "maybe"'),
    ('pki p crt "/c"',
     '1: expected an option of pki (cert, dhe, key) or the end of the line, found "crt"; did you mean "cert"?'),
    ("ca c", '1: expected "cert", found the end of the line'),
]  # fmt: skip

LISTEN_OPTIONS = (
    "expected an option of listen (auth, auth-optional, ca, ciphers, filter, hostname, hostnames, inet4, inet6, "
    "mask-src, no-dsn, pki, port, protocols, proxy-v2, received-auth, senders, smtps, tag, tls, tls-require) "
    "or the end of the line"
)
LISTEN = [
    ("listen on nowhere", '1: "nowhere" is not an interface, an address or a host name with an address'),
    ("listen on 192.0.2.300", '1: "192.0.2.300" is not an interface, an address or a host name with an address'),
    ("listen on bare", '1: interface "bare" has no address'),
    ("listen on if1 inet6", '1: "if1" has no IPv6 address'),
    ("listen on 192.0.2.1 inet6", '1: "192.0.2.1" has no IPv6 address'),
    ("listen on lo inet4 inet6", "1: a family is already given for this listener"),
    ("listen on lo port 0", "1: a port must be at least 1 and at most 65535, found 0"),
    ("listen on lo port 65536", "1: a port must be at least 1 and at most 65535, found 65536"),
    ('listen on lo port "25"', '1: expected a port number without quotes or the name of a service, found "25"'),
    ("listen on lo port finger", '1: "finger" is not a TCP service in services(5)'),
    ("listen on lo port 25 port 26", "1: a port is already given for this listener"),
    ("listen on lo prot 25", f'1: {LISTEN_OPTIONS}, found "prot"; did you mean "port"?'),
    ("listen on lo 25", f"1: {LISTEN_OPTIONS}, found the number 25"),
    ("listen on lo tls", "1: tls needs a pki"),
    ("listen on lo smtps", "1: smtps needs a pki"),
    ("listen on lo auth", "1: auth needs tls, tls-require or smtps"),
    ("listen on lo auth-optional <file>", "4: auth needs tls, tls-require or smtps"),
    (PKI + "listen on lo pki p", "2: pki needs tls, tls-require or smtps"),
    (PKI + "listen on lo tls smtps pki p", "2: a TLS mode is already given for this listener"),
    (PKI + "listen on lo tls pki p pki P", '2: pki "p" is already given for this listener'),
    ("listen on lo tls pki q", '1: no pki is declared with the name "q"'),
    ("listen on lo tls pki p\n" + PKI, '1: no pki is declared with the name "p"'),
    (PKI + "listen on lo tls pki p auth auth-optional", "2: auth is already given for this listener"),
    (PKI + "listen on lo tls pki p auth <fiel>",
     '5: no table is declared with the name "fiel"; did you mean "file"?'),
    (PKI + "listen on lo tls pki p auth <list>",
     '5: auth needs a mapping such as { key = value }, but table "list" is a list'),
    (PKI + "listen on lo tls pki p auth bob",
     "2: auth needs a mapping such as { key = value }, but these values are a list"),
    (PKI + "listen on lo tls verify pki p",
     "2: verify needs tls-require or smtps: with tls alone a client may stay in clear"),
    (PKI + "listen on lo verify", f'2: {LISTEN_OPTIONS}, found the keyword "verify"'),
    (PKI + "listen on lo smtps verify pki p ca roots", '2: no ca is declared with the name "roots"'),
    (PKI + 'ca roots cert "/r"\nlisten on lo smtps verify pki p ca root',
     '3: no ca is declared with the name "root"; did you mean "roots"?'),
    (PKI + 'ca roots cert "/r"\nlisten on lo smtps verify pki p ca roots ca roots',
     "3: a ca is already given for this listener"),
    (PKI + 'listen on lo tls pki p protocols "tlsv1.4"',
     '2: unknown protocol "tlsv1.4", expected TLSv1.2, TLSv1.3, default or all'),
    (PKI + 'listen on lo tls pki p protocols "tlsv1.0,tlsv1.1"',
     '2: "tlsv1.0,tlsv1.1" leaves neither TLSv1.2 nor TLSv1.3'),
    (PKI + "listen on lo tls pki p protocols all protocols all",
     "2: a list of protocols is already given for this listener"),
    (PKI + 'listen on lo tls pki p ciphers "HIGH;x"',
     '2: a list of ciphers is of the form of openssl-ciphers(1): "HIGH;x"'),
    (PKI + "listen on lo tls pki p ciphers HIGH ciphers HIGH",
     "2: a list of ciphers is already given for this listener"),
    ("listen on lo hostnames <list>",
     '4: hostnames needs a mapping such as { key = value }, but table "list" is a list'),
    ("listen on lo hostnames <fiel>", '4: no table is declared with the name "fiel"; did you mean "file"?'),
    ("listen on lo hostnames",
     '1: expected a value, <table> or values in braces after "hostnames", found the end of the line'),
    ("listen on lo hostnames <file> hostnames <file>", "4: hostnames is already given for this listener"),
    ("listen on lo senders { a, b }",
     "1: senders needs a mapping such as { key = value }, but these values are a list"),
    ("listen on lo senders <file> masquerade senders <file>", "4: senders is already given for this listener"),
    ("listen on lo masquerade", f'1: {LISTEN_OPTIONS}, found the keyword "masquerade"'),
    ("listen on lo mask-src mask-src", "1: mask-src is already given for this listener"),
    ("listen on lo no-dsn no-dsn", "1: no-dsn is already given for this listener"),
    ("listen on lo received-auth received-auth", "1: received-auth is already given for this listener"),
    ("listen on lo proxy-v2 proxy-v2", "1: proxy-v2 is already given for this listener"),
    ("listen on lo proxy-v2 from <file>",
     '4: proxy-v2 from needs its addresses in smtpd.conf, but table "file" is a file'),
    ("listen on lo proxy-v2 from { k = v }",
     "1: proxy-v2 from needs a list such as { a, b }, but these values are a mapping"),
    ("listen on lo proxy-v2 from { 192.0.2.0/24, here }",
     '1: "here" is not an address or a network such as 192.0.2.0/24'),
    ("listen on lo tag a tag b", "1: a tag is already given for this listener"),
    (f"listen on lo tag {'t' * 33}", "1: a tag has at most 32 characters, found 33"),
    ('listen on lo hostname "a b"',
     ['1: the hostname has no blanks: "a b"',
      '1: the hostname must be a host name or an address in brackets: "a b"']),
    ("listen on lo\nlisten on 127.0.0.1", "2: 127.0.0.1 port 25 is already listened on at CONF:1"),
    ("listen on 0.0.0.0\nlisten on 127.0.0.1", "2: 127.0.0.1 port 25: 0.0.0.0 is already listened on at CONF:1"),
    ("listen on 127.0.0.1\nlisten on 0.0.0.0", "2: 0.0.0.0 port 25: 127.0.0.1 is already listened on at CONF:1"),
    ("listen on ::1\nlisten on ::", "2: :: port 25: ::1 is already listened on at CONF:1"),
    ("listen on socket\nlisten on socket", "2: listen on socket is already declared at CONF:1"),
    ("listen on socket port 25",
     "1: expected an option of listen on socket (filter, mask-src, no-dsn, tag) or the end of the line, "
     'found the keyword "port"'),
    ("listen on socket no-dsn mask-src no-dsn", "1: no-dsn is already given for this listener"),
]  # fmt: skip


GLOBAL = [
    ("smtp ciphers 5",
     "1: expected a list of ciphers, found the number 5; quote it to use it as text"),
    ('smtp ciphers "A;B"', '1: a list of ciphers is of the form of openssl-ciphers(1): "A;B"'),
    ("queue compression 9", "1: expected the end of the line, found the number 9"),
    ('queue encryption "too short"', "1: the key of queue encryption has 32 characters, found 9"),
    ("queue encryption 12", '1: expected the key of queue encryption, "stdin" or "-", found the number 12; '
     "quote it to use it as text"),
    ("queue encryption -", '1: expected the key of queue encryption, "stdin" or "-", found "-"; '
     'a value that starts with "-" must be quoted'),
    ("queue encryption stdin x", '1: expected the end of the line, found "x"'),
    ("mta max-deferred", "1: expected a number for mta max-deferred, found the end of the line"),
    ("mta max-deferred 100001", "1: mta max-deferred must be at least 0 and at most 100000, found 100001"),
    ("mta limit for a.example max-conn-per-host 5", '1: expected "domain", found "a.example"'),
    ("mta limit for domain a..b max-conn-per-host 5", '1: expected a domain, found "a..b"'),
    ("mta limit for domain a.example max-conn-per-host 0",
     "1: mta limit max-conn-per-host must be at least 1 and at most 4294967295, found 0"),
    ("mta limit for domain a.example max-mails-per-minute 9999999",
     "1: mta limit max-mails-per-minute must be at least 0 and at most 1000000, found 9999999"),
    ("mta limit for domain a.example max-conn-per-host",
     "1: expected a number for mta limit max-conn-per-host, found the end of the line"),
    ("mda wrapper", "1: expected the name of a wrapper, found the end of the line"),
    ("mda wrapper w", "1: expected the command of a wrapper, found the end of the line"),
    ('mda wrapper w ""', "1: the command of a wrapper: a command without words"),
    ('mda wrapper w "x %{mda:raw}"', "1: the command of a wrapper: %{mda:raw}: mda is not known"),
    ('mda wrapper w "x %{mda}"\nmda wrapper w "y %{mda}"', '2: mda wrapper "w" is already declared at CONF:1'),
    ("mda limit max-session-per-user 0",
     "1: mda limit max-session-per-user must be at least 1 and at most 4294967295, found 0"),
    ("smtp", '1: expected "ciphers" or "limit" or "max-message-size" or "sub-addr-delim", found the end of the line'),
    ("smtp limits max-rcpt 5",
     '1: expected "ciphers" or "limit" or "max-message-size" or "sub-addr-delim", '
     'found "limits"; did you mean "limit"?'),
    ("smtp limit max-rcpts 5",
     '1: expected a limit of smtp (max-mails, max-rcpt, processes), found "max-rcpts"; did you mean "max-rcpt"?'),
    ('smtp limit max-rcpt "10"', '1: expected a number without quotes for smtp limit max-rcpt, found "10"'),
    ("smtp limit max-rcpt 0", "1: smtp limit max-rcpt must be at least 1 and at most 4294967295, found 0"),
    ("smtp limit max-rcpt", "1: expected a number for smtp limit max-rcpt, found the end of the line"),
    ("smtp max-message-size 10MB",
     '1: a size is a number and one of B, K, M, G, T, P, E, such as 35M: "10MB"'),
    ("smtp max-message-size -1",
     "1: max-message-size must be at least 0 and at most 9223372036854775807, found -1"),
    ('smtp sub-addr-delim "++"', '1: sub-addr-delim is one printable character, not a space or "@": "++"'),
    ('smtp sub-addr-delim "@"', '1: sub-addr-delim is one printable character, not a space or "@": "@"'),
    ("smtp sub-addr-delim +",
     '1: expected one character in quotes, found "+"; a value that starts with "+" must be quoted'),
    ("queue ttl 4", "1: expected the queue ttl with a unit: s, m, h or d, found the number 4"),
    ("queue ttl 0d", '1: the queue ttl is a positive number and s, m, h or d, such as 4d: "0d"'),
    ("bounce warn-interval 1h, 2h, 3h, 4h, 5h", "1: at most 4 warn-intervals, found 5"),
    ("bounce warn-interval 1h,", "1: expected a warn-interval, found the end of the line"),
    ("scheduler limit max-inflight -1",
     "1: scheduler limit max-inflight must be at least 1 and at most 4294967295, found -1"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SYNTAX + TABLE + PKI_AND_CA + LISTEN + GLOBAL)
def test_refused_with_a_reason(refused, text: str, expected: str | list[str]) -> None:
    """file:line: what was expected and what was found."""
    refused(text, expected)


def test_every_problem_is_reported(errors_of) -> None:
    """Reading goes on at the next line, after the braces of a list, or at the next directive."""
    text = """\
lisen on lo
table t {
    a, 5
    b
}
filter f chain {
    "x"
}
listen on lo prot 25
table open {
    a
    b = c
match from any action a
action a relay
match from any tags x action a
match from any action a
"""
    words = [line.split(":")[0] for line in errors_of(text)]
    assert words == ["1", "3", "7", "9", "12", "13", "15"]


def test_a_broken_declaration_is_reported_once(errors_of) -> None:
    """Uses of what was declared with an error are not reported as well."""
    text = "table t 5\naction a relay foo\nmatch from any for domain <t> action a\n"
    assert [line.split(":")[0] for line in errors_of(text)] == ["1", "2"]


def test_no_rule_is_fatal(errors_of) -> None:
    """A configuration without match would accept nothing (FEATURES A1, order)."""
    expected = "/etc/mail/smtpd.conf: there is no match rule, so no mail would be accepted"
    assert errors_of("") == [expected.replace("/etc/mail/smtpd.conf", "CONF")]
    assert errors_of("listen on lo\n") == [expected.replace("/etc/mail/smtpd.conf", "CONF")]
    assert errors_of("match from any\n")[0].startswith("1: expected a condition")
    assert len(errors_of("match from any\n")) == 1


def test_a_file_that_cannot_be_read(load_text, errors_of) -> None:
    """The file itself and included ones: the reason of the system, no traceback."""
    assert errors_of("", files={"/etc/mail/smtpd.conf": PermissionError(13, "Permission denied")}) == [
        "CONF: cannot be read: Permission denied"
    ]
    undecodable = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    assert errors_of("", files={"/etc/mail/smtpd.conf": undecodable}) == ["CONF: is not UTF-8 text"]
    assert errors_of('include "/nope"\n' + RULE) == ["/nope: cannot be read: No such file or directory"]
    assert errors_of('include "/a"\n' + RULE, files={"/a": "\nlisen"}) == [
        '/a:2: expected a directive or a macro, found "lisen"; did you mean "listen"?'
    ]


def test_include_cycles(errors_of) -> None:
    """A file that includes itself, at any depth and however its path is spelt, is an error."""
    assert errors_of('include "/etc/mail/smtpd.conf"\n' + RULE) == ['1: "/etc/mail/smtpd.conf" includes itself'.replace(
        "/etc/mail/smtpd.conf", "CONF"
    )]  # fmt: skip
    files = {"/a": 'include "/x/../b"\n', "/x/../b": 'include "/a"\n'}
    assert errors_of('include "/a"\n' + RULE, files=files) == ['/x/../b:1: "/a" includes itself']
    deep = {f"/{n}": f'include "/{n + 1}"\n' for n in range(40)}
    assert errors_of('include "/0"\n' + RULE, files=deep) == ["/14:1: files include each other more than 16 deep"]


def test_many_includes(errors_of) -> None:
    """Files that include each other over and over end at a bound, not never."""
    files = {f"/{n}": f'include "/{n + 1}"\n' * 8 for n in range(12)} | {"/12": ""}
    assert "more than 1000 files are included" in errors_of('include "/0"\n' + RULE, files=files)[0]


def test_problems_are_one_printable_line(errors_of) -> None:
    """What the file holds is escaped where it is quoted back."""
    assert errors_of("table \x1b[31m {a}\n" + RULE) == ['1: expected the name of a table, found "\\x1b"']


def test_too_many_listeners(errors_of) -> None:
    """The contract has room for 256 addresses, the local socket among them."""
    lines = "".join(f"listen on 127.0.0.1 port {port}\n" for port in range(1000, 1256))
    assert errors_of(lines + RULE) == ["CONF: at most 255 addresses to listen on, found 256"]
