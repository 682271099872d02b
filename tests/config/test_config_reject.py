"""config/load: what is refused, with the exact words."""

import pytest

RULE = "match from any for any reject\n"
PKI = 'pki p cert "/c" key "/k"\n'
TABLES = 'table list { a, b }\ntable map { a = b }\ntable file "/f"\n'

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

RELAY = "auth, backup, ca, ciphers, domain, filter, helo, helo-src, host, mail-from, pki, protocols, src, srs, tls, ttl"
ACTION = [
    ("action", "1: expected the name of an action, found the end of the line"),
    ("action relay relay",
     '1: expected the name of an action, found the keyword "relay"; quote it to use it as a value'),
    ("action a", "1: expected what the action does (expand-only, forward-only, lmtp, maildir, mbox, mda, relay), "
     "found the end of the line"),
    ("action a malidir",
     '1: expected what the action does (expand-only, forward-only, lmtp, maildir, mbox, mda, relay), '
     'found "malidir"; did you mean "maildir"?'),
    ("action a relay\naction a mbox", '2: action "a" is already declared at CONF:1'),
    ("action a mda", "1: expected the command of an mda, found the end of the line"),
    ('action a mda ""', "1: the command of an mda: a command without words"),
    ('action a mda "x %{sender"', "1: the command of an mda: a %{ without its } in x %{sender"),
    ('action a mda "x %{mda}"', "1: the command of an mda: %{mda}: mda is not known"),
    ('action a mda "x %{sender:shout}"', "1: the command of an mda: %{sender:shout}: shout is not a modifier"),
    ('action a mda "x %{dest[a]}"', "1: the command of an mda: %{dest[a]} is not a format specifier"),
    (f'action a mda "{"x" * 2001}"', "1: the command of an mda is longer than 2000 bytes"),
    ("action a maildir junk junk",
     "1: expected an option of maildir (alias, ttl, user, userbase, virtual, wrapper) or the end of the line, "
     'found the keyword "junk"'),
    ("action a mbox junk",
     "1: expected an option of mbox (alias, ttl, user, userbase, virtual, wrapper) or the end of the line, "
     'found the keyword "junk"'),
    ("action a maildir wrapper w", '1: mda wrapper "w" is not declared'),
    ('mda wrapper nice "nice %{mda}"\naction a mda x wrapper nise',
     '2: mda wrapper "nise" is not declared; did you mean "nice"?'),
    ('mda wrapper w "w %{mda}"\naction a mbox wrapper w',
     "2: wrapper cannot be given with mbox, which is no command here"),
    ('mda wrapper w "w %{mda}"\naction a lmtp "/l" wrapper w',
     "2: wrapper cannot be given with lmtp, which is no command here"),
    ('mda wrapper w "w %{mda}"\naction a mda x wrapper w wrapper w',
     "2: wrapper is already given for this action"),
    ('action a mda x wrapper w\nmda wrapper w "w %{mda}"', '1: mda wrapper "w" is not declared'),
    ('action a maildir ""', "1: the path of a maildir may not be empty"),
    (f"action a maildir {'m' * 1023}", "1: the path of a maildir is longer than 1024 bytes"),
    ('action a maildir "%{usr}"', '1: %{usr}: usr is not known'),
    ('action a maildir "%{dest:upcase}"',
     "1: %{dest:upcase}: upcase is not a modifier"),
    ('action a maildir "%{dest"', '1: a %{ without its } in %{dest'),
    ("action a mbox user bob", "1: user cannot be given with mbox"),
    ("action a expand-only user bob", "1: user cannot be given with expand-only"),
    ("action a forward-only user bob", "1: user cannot be given with forward-only"),
    ("action a expand-only maildir",
     '1: expected an option of expand-only (alias, ttl, user, userbase, virtual, wrapper) or the end of the line, '
     'found the keyword "maildir"'),
    ("action a maildir userbase <list>",
     '4: userbase needs a mapping such as { key = value }, but table "list" is a list'),
    ("action a maildir userbase { bob }",
     "1: userbase needs a mapping such as { key = value }, but these values are a list"),
    ("action a maildir userbase <file> userbase <file>", "4: userbase is already given for this action"),
    ('action a maildir userbase { bob = "1000" }', '1: expected uid:gid:home, found "1000"'),
    ('action a maildir userbase { bob = "1:x:/h" }', '1: a gid is a number up to 4294967294, found "x"'),
    ('action a maildir userbase { bob = "1:1:h" }', '1: the home directory must start with "/", found "h"'),
    ("action a mbox alias <map> virtual <map>", "4: alias and virtual exclude each other"),
    ("action a mbox alias <list>", '4: alias needs a mapping such as { key = value }, but table "list" is a list'),
    ("action a mbox alias { a }", "1: alias needs a mapping such as { key = value }, but these values are a list"),
    ("action a mbox alias",
     '1: expected a value, <table> or values in braces after "alias", found the end of the line'),
    ("action a maildir user a user b", "1: user is already given for this action"),
    ("action a maildir ttl 1d user b", "1: user must come before ttl"),
    ("action a maildir ttl 7",
     "1: expected the ttl with a unit: s, m, h or d, found the number 7"),
    ("action a maildir ttl 7w", '1: the ttl is a positive number and s, m, h or d, such as 4d: "7w"'),
    ("action a maildir 5",
     "1: expected an option of maildir (alias, ttl, user, userbase, virtual, wrapper) or the end of the line, "
     'found the number 5'),
    ('action a lmtp "/l" alais <map>',
     '4: expected an option of lmtp (alias, ttl, user, userbase, virtual, wrapper) or the end of the line, found '
     '"alais"; did you mean "alias"?'),
    (f'action a lmtp "/{"l" * 103}"', "1: the path of a socket has at most 103 bytes"),
    ("action a lmtp localhost:x", '1: "x" is not a port number (1 to 65535)'),
    ("action a lmtp", "1: expected an absolute socket path or host:port, found the end of the line"),
    ("action a relay host smtp://bob@mx1",
     '1: "smtp://bob@mx1": smtp:// does not always encrypt; a label needs smtp+tls:// or smtps://'),
    ("action a relay host smtps://bob@mx1", "1: a host with a label needs auth, the table of credentials"),
    ("action a relay host { mx1, lmtp://mx2:24 } tls", "1: tls and a host with lmtp:// contradict each other"),
    ('action a maildir "~/../x"', '1: the path of a maildir may not lead upwards: "~/../x"'),
    ("action a relay host <map>", '4: host needs a list such as { a, b }, but table "map" is a mapping'),
    ("action a relay host smtp+notls://mx1 tls", "1: tls and a host with smtp+notls:// contradict each other"),
    ("action a relay auth <file> host smtps://b@mx1", "4: auth must come after host or domain"),
    ("action a relay auth <file>", "4: auth must come after host or domain"),
    ("action a relay tls tls", "1: tls is already given for this action"),
    ("action a relay tls no-verfy",
     f'1: expected an option of relay ({RELAY}) or the end of the line, '
     'found "no-verfy"'),
    ("action a relay pki q", '1: no pki is declared with the name "q"'),
    ("action a relay mail-from bob", '1: the sender must be user@domain or "@domain": "bob"'),
    ('action a relay mail-from "@"', '1: the sender must be user@domain or "@domain": "@"'),
    ("action a relay mail-from a@b mail-from c@d", "1: mail-from is already given for this action"),
    ("action a relay helo a_b..c", '1: the helo name must be a host name or an address in brackets: "a_b..c"'),
    ("action a relay user bob",
     f'1: expected an option of relay ({RELAY}) or the end of the line, '
     'found the keyword "user"'),
    ("action a relay filter", '1: expected the name of a filter or "{", found the end of the line'),
    ("action a relay filter nothing", '1: no filter is declared with the name "nothing"'),
    ("action a relay filter { nothing }", '1: no filter is declared with the name "nothing"'),
    ("action a relay srs", "1: srs needs a key; declare it before with srs key"),
    ('action a relay srs\nsrs key "x"', "1: srs needs a key; declare it before with srs key"),
    ("srs", '1: expected "key" or "ttl", found the end of the line'),
    ('srs secret "x"', '1: expected "key" or "ttl", found "secret"'),
    ('srs key ""', "1: the secret of srs may not be empty"),
    ("srs key", "1: expected the secret of srs, found the end of the line"),
    ("srs key backup", "1: expected the secret of srs, found the end of the line"),
    ("srs ttl 23h", '1: the srs ttl is at least 1d and at most 1000d: "23h"'),
    ("srs ttl 1001d", '1: the srs ttl is at least 1d and at most 1000d: "1001d"'),
    ("srs ttl 4", "1: expected the srs ttl with a unit: s, m, h or d, found the number 4"),
    ("action a relay backup host b", "1: backup host must come after host"),
    ("action a relay backup host b host a", "1: backup host must come after host"),
    ("action a relay host a backup host <file>", "4: backup host needs its list in smtpd.conf"),
    ("action a relay host a backup host <map>",
     '4: backup host needs a list such as { a, b }, but table "map" is a mapping'),
    ("action a relay host a backup host lmtp://b", '1: "lmtp://b": lmtp:// needs a port'),
    ("action a relay host a backup host smtps://l@b", "1: a host with a label needs auth, the table of credentials"),
    ("action a relay host a tls backup host smtp+notls://b",
     "1: tls and a host with smtp+notls:// contradict each other"),
    ("action a relay host a backup", "1: host, domain and backup exclude each other"),
    ("action a relay backup mx m host a", "1: host, domain and backup exclude each other"),
    ("action a relay domain <map> host a", "4: host, domain and backup exclude each other"),
    ("action a relay host a domain <map>", "4: host, domain and backup exclude each other"),
    ("action a relay backup domain <map>", "4: host, domain and backup exclude each other"),
    ("action a relay backup backup", "1: backup is already given for this action"),
    ("action a relay backup mx a..b", '1: the name of an MX must be a host name: "a..b"'),
    ("action a relay backup mx", "1: expected the name of an MX, found the end of the line"),
    ("action a relay domain x", "1: domain needs a mapping such as { key = value }, but these values are a list"),
    ('action a relay domain { "x.example" = "smtp://" }', "1: \"smtp://\": the host name is missing"),
    ('action a relay domain { "x.example" = "smtps://l@m" }',
     "1: a host with a label needs auth, the table of credentials"),
    ("action a relay ca q", '1: no ca is declared with the name "q"'),
    ("action a relay protocols SSLv3",
     '1: unknown protocol "SSLv3", expected TLSv1.2, TLSv1.3, default or all'),
    ("action a relay protocols TLSv1.1", '1: "TLSv1.1" leaves neither TLSv1.2 nor TLSv1.3'),
    ("action a relay protocols", "1: expected versions of TLS, found the end of the line"),
    ('action a relay ciphers "a;b"', '1: a list of ciphers is of the form of openssl-ciphers(1): "a;b"'),
    ("action a relay src mx.example", '1: expected an IP address, found "mx.example"'),
    ('action a relay src "fe80::1%eth0"', '1: expected an IP address, found "fe80::1%eth0"'),
    ("action a relay helo-src x", "1: helo-src needs a mapping such as { key = value }, but these values are a list"),
    ('action a relay helo-src { "192.0.2.1" = "a b" }', '1: expected a host name, found "a b"'),
    ("action a relay helo-src { out = mx.example }", '1: expected an IP address, found "out"'),
]  # fmt: skip

WORDS = "from, for, auth, helo, mail-from, rcpt-to, tag, tls"
MATCH = [
    ("match", f"1: expected a condition ({WORDS}), action or reject, found the end of the line"),
    ("match from any", f"1: expected a condition ({WORDS}), action or reject, found the end of the line"),
    ("match ! action a", f'1: expected a condition ({WORDS}), found the keyword "action"'),
    ("match form any reject",
     f'1: expected a condition ({WORDS}), action or reject, found "form"; did you mean "for"?'),
    ("match from anywhere reject",
     '1: expected any, auth, local, mail-from, rdns, socket, src after from, found "anywhere"'),
    ("match for socket reject",
     '1: expected any, domain, local, rcpt-to after for, found the keyword "socket"'),
    ("match from any from local reject", "1: from is already given for this rule"),
    ("match for any !for local reject", "1: for is already given for this rule"),
    ("match from auth auth reject", "1: auth is already given for this rule"),
    ("match auth from auth reject", "1: auth is already given for this rule"),
    ("match for rcpt-to a@b rcpt-to c@d reject", "1: rcpt-to is already given for this rule"),
    ("match tls !tls reject", "1: tls is already given for this rule"),
    ("match for domain reject",
     '1: expected a value, <table> or values in braces after "for domain", found the keyword "reject"; '
     "quote it to use it as a value"),
    ("match for domain <map> reject", '4: for domain needs a list such as { a, b }, but table "map" is a mapping'),
    ("match for domain <nope> reject", '1: no table is declared with the name "nope"'),
    ("match for domain <any> reject",
     '1: expected the name of a table, found the keyword "any"; quote it to use it as a value'),
    ("match tag { a = b } reject", "1: tag needs a list such as { a, b }, but these values are a mapping"),
    ("match from src 10.0.0.300 reject", '1: "10.0.0.300" is not an address or a network such as 192.0.2.0/24'),
    ('match from src "[2001:db8::]/129" reject',
     '1: "[2001:db8::]/129" is not an address or a network such as 192.0.2.0/24'),
    ('match from src "[2001:db8::/32]/32" reject',
     '1: "[2001:db8::/32]/32" is not an address or a network such as 192.0.2.0/24'),
    ("action a relay host smtps://l@mx auth { l = p }",
     "1: expected user:password, or a password of at least three characters"),
    ("table f file:/f\naction a maildir alias <f>\nmatch for domain <f> reject",
     '3: for domain needs a list such as { a, b }, but table "f" is used as a mapping above'),
    ("table f file:/f\nmatch for domain <f> reject\nmatch tag <f> reject\naction a maildir alias <f>",
     '4: alias needs a mapping such as { key = value }, but table "f" is used as a list above'),
    ("match from src 10.0.0.0/33 reject", '1: "10.0.0.0/33" is not an address or a network such as 192.0.2.0/24'),
    ("match from any action nope", '1: no action is declared with the name "nope"'),
    ("action send relay\nmatch from any action sned",
     '2: no action is declared with the name "sned"; did you mean "send"?'),
    ("match from any action later\naction later relay", '1: no action is declared with the name "later"'),
    ("match from any action",
     "1: expected the name of an action, found the end of the line"),
    ("match from any reject tag x", '1: expected the end of the line, found the keyword "tag"'),
    ("match from rdns regex reject",
     '1: expected a value, <table> or values in braces after "from rdns regex", found the keyword "reject"; '
     "quote it to use it as a value"),
    ("match from rdns <map> reject", '4: from rdns needs a list such as { a, b }, but table "map" is a mapping'),
    ("match from rdns a from src b reject",
     ["1: from is already given for this rule",
      '1: "b" is not an address or a network such as 192.0.2.0/24']),
    ('match for domain regex "(" reject',
     '1: "(" is not a regular expression: an empty pattern or branch at character 2'),
    ('table p { "a" "b**" }\nmatch helo regex <p> reject',
     '2: "b**" is not a regular expression: a repetition of a repetition at character 3'),
    ('match helo regex { "(a{255}){40}" "(b{255}){40}" } reject',
     "1: the regular expressions together: with its repetitions written out it is too large"),
    ("match for domain regex reject",
     '1: expected a value, <table> or values in braces after "for domain regex", found the keyword "reject"; '
     "quote it to use it as a value"),
    ("match auth regex reject",
     '1: expected a value, <table> or values in braces after "auth regex", found the keyword "reject"; '
     "quote it to use it as a value"),
    ("match mail-from regex <map> reject",
     '4: mail-from regex needs a list such as { a, b }, but table "map" is a mapping'),
    ("match from any regex x reject",
     f'1: expected a condition ({WORDS}), action or reject, found the keyword "regex"'),
    ("match tls regex x reject",
     f'1: expected a condition ({WORDS}), action or reject, found the keyword "regex"'),
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


@pytest.mark.parametrize(("text", "expected"), SYNTAX + TABLE + PKI_AND_CA + LISTEN + ACTION + MATCH + GLOBAL)
def test_refused_with_a_reason(errors_of, text: str, expected: str | list[str]) -> None:
    """file:line: what was expected and what was found."""
    if any(f"<{name}>" in text for name in ("list", "map", "file", "fiel")) or text.startswith("table list"):
        text = TABLES + text
    ending = "" if "quote that starts" in str(expected) or "end of the file" in str(expected) else "\n" + RULE
    assert errors_of(text + ending)[: 1 if not ending else None] == (
        [expected] if isinstance(expected, str) else expected
    )


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
