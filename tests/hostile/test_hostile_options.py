"""What options of a listener let in: PROXY headers, filters' answers, and headers that are masqueraded."""

import base64
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, free_port, wait_until
from support.hostile import END, Target, Watch, Wire, peak_memory
from support.sink import sinking
from support.users import ensure_daemon_users

SCRIPT = Path(__file__).parent.parent / "support" / "filters" / "injecting.py"
# One that a user without rights can run: that of the tests may lie in somebody's home.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
CONFIG = """
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
table submitters "{dir}/submitters"
table owners { alice = "alice@own.test" }
proc hostile "PYTHON {dir}/filter.py {dir}/attacks"
filter hostile proc hostile
listen on 127.0.0.1 port {port} hostname mx.test
listen on 127.0.0.1 port {port2} tls-require pki mxkey auth <submitters> senders <owners> masquerade hostname mx.test
listen on 127.0.0.1 port PROXIED proxy-v2 from { "127.0.0.1", "127.0.0.4" } hostname mx.test
listen on 127.0.0.1 port FILTERED filter hostile hostname mx.test
mta limit session-keepalive 1
action out relay host "smtp+notls://127.0.0.1:SINK"
match from any for domain example.com action out
match from src "192.0.2.77" for domain inner.test action out
match from local for domain local.test action out
match auth from any for any action out
"""
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
# Answers of the filter, by number; see ANSWERS and LINES for what must come of each.
ANSWERS = {
    r"rewrite|<a@b.test>\rRCPT TO:<x@example.com>": b"5",
    r"rewrite|<a@b.test>\r\x00": b"5",
    r"rewrite|<a@b.test> SIZE=1": b"5",
    r"rewrite|<a@b.test><c@d.test>": b"5",
    r"rewrite|<<>>": b"5",
    r"rewrite|": b"5",
    r"rewrite|\xff\xfe": b"5",
    r"rewrite|<j\xc3\xbc@b.test>": b"5",
    r"rewrite|a b c": b"5",
    r"rewrite|<a\x1b[2J@b.test>": b"5",
    r"reject|550 go\r250 2.0.0 Ok": b"550 ",
    r"reject|550 \x1b[2Jgo": b"550 ",
    r"reject|550-go": b"421 ",
    r"reject|250 2.0.0 Ok": b"421 ",
    r"reject|": b"421 ",
    r"reject|421": b"421 ",
    r"disconnect|221 bye": b"421 ",
    r"disconnect|550 \xff\xfe": b"421 ",
}
LINES = {
    r"a\rb": 1,
    r"a\x00b": 1,
    r"\r": 1,
    r"a\r": 1,
    r"\x00.\x00": 1,
    r"..\nMAIL FROM:<forged@example.com>\nRCPT TO:<b@example.com>\nDATA": 1,
    r".\r\nMAIL FROM:<forged@example.com>": None,  # the end, and more: this message fails or is cut short
}


class Options(Target):
    """The daemon, and its other ports."""

    proxied: int
    filtered: int


@pytest.fixture(scope="module")
def running_options() -> Iterator[Options]:
    """One daemon for all of this file."""
    if os.getuid() != 0:
        pytest.skip("needs root: counts the descriptors of processes that are not dumpable")
    ensure_daemon_users()
    proxied, filtered = free_port(), free_port()
    with sinking() as sink:
        config = CONFIG.replace("SINK", str(sink.port)).replace("PROXIED", str(proxied)).replace("PYTHON", PYTHON)
        daemon = Daemon(config.replace("FILTERED", str(filtered)))
        try:
            write_acme(daemon.dir / "acme", make_key("ecdsa"))
            hashed = cli("smtpctl_ps", "encrypt", "correct horse").stdout.strip()
            (daemon.dir / "submitters").write_text(f"alice {hashed}\n")
            (daemon.dir / "submitters").chmod(0o600)
            shutil.copy(SCRIPT, daemon.dir / "filter.py")
            (daemon.dir / "attacks").write_text("".join(f"{line}\n" for line in (*ANSWERS, *LINES)))
            daemon.start()
            options = Options(daemon, sink, Watch(daemon))
            options.proxied, options.filtered = proxied, filtered
            yield options
            assert daemon.stop() == 0
            assert "Traceback" not in daemon.log
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()


@pytest.fixture
def options(running_options: Options) -> Iterator[Options]:
    """The daemon, whose health is checked after each test."""
    running_options.sink.mails.clear()
    yield running_options
    running_options.watch.check()


def proxy_header(command: int = 0x21, family: int = 0x11, rest: bytes = b"", size: int | None = None) -> bytes:
    """A header of the PROXY protocol."""
    return SIGNATURE + bytes([command, family]) + (len(rest) if size is None else size).to_bytes(2) + rest


def from_address(address: str) -> bytes:
    """One that says so of an IPv4 client."""
    return proxy_header(rest=socket.inet_aton(address) + socket.inet_aton("127.0.0.1") + b"\x04\xd2\0\x19")


def connect(port: int, source: str = "127.0.0.1") -> Wire:
    """A client that has not read its greeting, from an address of its choice."""
    wire = Wire.__new__(Wire)
    wire.sock = socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0))
    wire._got = b""
    return wire


def test_a_proxy_is_believed(options: Options) -> None:
    """Without a trap it works: the other tests could fail."""
    with connect(options.proxied) as wire:
        wire.send(from_address("192.0.2.77"))
        wire.hello()
        wire.to_data("b@inner.test")
        assert wire.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        wire.say("QUIT")
    (data,) = options.taken(1)
    assert b"[192.0.2.77]" in data


IPV4 = socket.inet_aton("192.0.2.77") + socket.inet_aton("127.0.0.1") + b"\x04\xd2\0\x19"
HEADERS = {
    "none": b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@inner.test>\r\n",
    "version 1": b"PROXY TCP4 192.0.2.77 127.0.0.1 1234 25\r\nEHLO x\r\n",
    "a TLS handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x41" * 300,
    "a signature with a bit turned": b"\r\n\r\n\0\r\nQUIT\x0b" + from_address("192.0.2.77")[12:],
    "version 0": proxy_header(0x01, rest=IPV4),
    "version 1 in binary": proxy_header(0x11, rest=IPV4),
    "version 15": proxy_header(0xF1, rest=IPV4),
    "command 2": proxy_header(0x22, rest=IPV4),
    "command 15": proxy_header(0x2F, rest=IPV4),
    "UNSPEC for a client": proxy_header(0x21, 0x00),
    "UDP": proxy_header(0x21, 0x12, IPV4),
    "family 15": proxy_header(0x21, 0xFF, IPV4),
    "addresses too short": proxy_header(rest=IPV4[:11]),
    "no addresses": proxy_header(rest=b""),
    "IPv6 with addresses of IPv4": proxy_header(0x21, 0x21, IPV4),
    "a Unix socket without its paths": proxy_header(0x21, 0x31, b"/run/x"),
    "TLVs of 65,523 bytes": proxy_header(rest=IPV4 + b"\x04\xff\xf0" + b"x" * 65_520),
    "TLVs of 4,085 bytes": proxy_header(rest=IPV4 + b"\x04\x0f\xf2" + b"x" * 4082),
    "a size of 65,535 and nothing": proxy_header(rest=IPV4, size=65_535),
}


@pytest.mark.parametrize("what", HEADERS)
def test_what_is_no_proxy_header(options: Options, what: str) -> None:
    """A close without a word, however much follows."""
    with connect(options.proxied) as wire:
        wire.send(HEADERS[what] + b"EHLO x\r\nNOOP\r\n")
        assert wire.closed()


@pytest.mark.parametrize("what", ["client", "local socket", "v1"])
def test_who_is_not_listed_is_no_proxy(options: Options, what: str) -> None:
    """Whatever he says of himself, he is disconnected without a word."""
    said = {"client": from_address("127.0.0.1"), "local socket": proxy_header(0x21, 0x31, bytes(216)), "v1": b"PROXY "}
    for _ in range(20):
        with connect(options.proxied, "127.0.0.2") as wire:
            wire.send(said[what])
            assert wire.closed()


@pytest.mark.parametrize("address", ["192.0.2.78", "0.0.0.0", "255.255.255.255", "224.0.0.1"])
def test_what_a_proxy_says_counts_and_not_who_it_is(options: Options, address: str) -> None:
    """A client behind the proxy is not local because the proxy is."""
    with connect(options.proxied) as wire:
        wire.send(from_address(address))
        wire.hello()
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        assert wire.say("RCPT TO:<b@inner.test>").startswith(b"550 ")
        assert wire.say("RCPT TO:<b@local.test>").startswith(b"550 ")
        assert wire.say("RCPT TO:<b@example.com>").startswith(b"250 ")


def test_an_ipv4_address_in_an_ipv6_header(options: Options) -> None:
    """It is the IPv4 address, for rules as for limits."""
    mapped = b"\0" * 10 + b"\xff\xff" + socket.inet_aton("192.0.2.77")
    with connect(options.proxied) as wire:
        wire.send(proxy_header(0x21, 0x21, mapped + bytes(20)))
        wire.hello()
        assert b"[192.0.2.77]" in (wire.send(b"HELO x\r\n") or wire.line())


@pytest.mark.parametrize(
    "tlvs", [b"", b"\x04\x00\x00", b"\x04\xff\xff", b"\xff", b"\x20\x00\x05\x01\x00\x00\x00\x00" * 100]
)
def test_tlvs_are_passed_over(options: Options, tlvs: bytes) -> None:
    """Also broken ones; what stands behind the header is the session's."""
    with connect(options.proxied) as wire:
        wire.send(proxy_header(rest=IPV4 + tlvs) + b"EHLO x\r\nNOOP\r\n")
        assert wire.reply().startswith(b"220 ")
        assert wire.reply().startswith(b"250 ")
        assert wire.reply() == b"250 2.0.0 Ok"


def test_a_second_header_is_a_bad_command(options: Options) -> None:
    """Nobody changes his address within a session."""
    with connect(options.proxied) as wire:
        wire.send(from_address("192.0.2.78"))
        wire.hello()
        wire.send(from_address("192.0.2.77"))
        answers = [wire.reply() for _ in range(3)]
        assert all(answer.startswith(b"500 ") for answer in answers), answers


def test_headers_that_do_not_come(options: Options) -> None:
    """Three hundred connections that send a byte or nothing: others are served, and nothing is left of them."""
    before = options.watch.fd_count("smtp")
    wires = [connect(options.proxied) for _ in range(300)]
    with peak_memory(options.watch):
        for at, wire in enumerate(wires):
            wire.send(from_address("192.0.2.77")[: at % 28])
        wait_until("all are there", lambda: options.watch.fd_count("smtp") >= before + 250)
        options.watch.serves()
    for wire in wires:
        wire.sock.close()


def test_more_silent_connections_than_a_source_may_have(options: Options) -> None:
    """They do not take the room of all others: from one address only so many wait for their headers."""
    before = options.watch.fd_count("smtp")
    wires = [connect(options.proxied, "127.0.0.4") for _ in range(1100)]
    try:
        for wire in wires[-20:]:
            assert wire.closed()
        assert 500 < options.watch.fd_count("smtp") - before <= 1024
        options.watch.serves()
        with connect(options.proxied) as wire:
            wire.send(from_address("192.0.2.77"))
            wire.hello()
    finally:
        for wire in wires:
            wire.sock.close()


def test_a_header_in_single_bytes(options: Options) -> None:
    """However it is cut, nothing behind it is lost."""
    with connect(options.proxied) as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in from_address("192.0.2.77") + b"EHLO x\r\n":
            wire.send(bytes([byte]))
        assert wire.reply().startswith(b"220 ")
        assert wire.reply().startswith(b"250 ")


@pytest.mark.parametrize("verb", ["EHLO {}", "MAIL FROM:<a@{}>", "RCPT TO:<a@{}>"])
@pytest.mark.parametrize("attack", ANSWERS)
def test_answers_of_a_hostile_filter(options: Options, attack: str, verb: str) -> None:
    """What it answers is one reply of ours, or a value that is checked like the client's own."""
    name = f"{list(ANSWERS).index(attack)}.attack.test"
    with Wire(("127.0.0.1", options.filtered)) as wire:
        wire.hello()
        if verb.startswith("RCPT"):
            assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        answer = wire.say(verb.format(name))
        if verb.startswith("MAIL") and answer.startswith(b"250 "):  # one address was in it, and that is the sender
            assert attack.startswith("rewrite|")
            assert wire.say("RCPT TO:<b@example.com>").startswith(b"250 ")
            assert wire.say("DATA").startswith(b"354 ")
            assert wire.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
            wire.say("QUIT")
            options.taken(1)
            assert options.sink.mails[0].recipients == ["b@example.com"]
            assert options.sink.mails[0].sender in ("a@b.test", "")
            return
        assert answer.startswith(ANSWERS[attack]), answer
        if answer.startswith(b"421 ") or attack.startswith("disconnect"):
            assert wire.closed()
        else:
            assert wire.say("NOOP") == b"250 2.0.0 Ok"


@pytest.mark.parametrize("attack", LINES)
def test_lines_of_a_hostile_filter(options: Options, attack: str) -> None:
    """What it makes of a message is one message, with line ends and nothing that ends it for the next server."""
    number = len(ANSWERS) + list(LINES).index(attack)
    with Wire(("127.0.0.1", options.filtered)) as wire:
        wire.hello()
        wire.to_data()
        wire.send(b"Subject: x\r\n\r\nbefore\r\nX-Lines: %d\r\nafter" % number + END)
        answer = wire.reply()
        assert answer[:1] in b"245"
        wire.send(b"NOOP\r\n")
        assert wire.reply() in (b"250 2.0.0 Ok", b"")
    messages = options.taken(1 if answer.startswith(b"250 ") else 0)
    if LINES[attack] is not None:
        assert answer.startswith(b"250 ")
    for data in messages:
        assert not re.search(rb"(?<!\r)\n|\r(?!\n)|\0", data)
        assert b"before\r\n" in data


MASQUERADES = {
    "ten thousand comments": b"From: " + b"(" * 10_000 + b"evil@else.test" + b")" * 10_000 + b"\r\n",
    "comments that do not end": b"From: " + b"(" * 30_000 + b"\r\n",
    "five thousand addresses": b"From: " + b",\r\n ".join([b"evil@else.test"] * 5000) + b"\r\n",
    "two thousand fields": b"From: evil@else.test\r\n" * 2000,
    "a quote that does not end": b'From: "evil@else.test <alice@own.test>\r\n',
    "backslashes": b'From: "' + b"\\" * 20_001 + b'" <evil@else.test>\r\n',
    "folds": b"From:\r\n" + b" \r\n" * 5000 + b" evil@else.test\r\n",
    "a fold within the address": b"From: evil\r\n @else.test\r\n",
    "blanks before the colon": b"From \t : evil@else.test\r\n",
    "capitals": b"FROM: evil@else.test\r\nfrom: evil@else.test\r\n",
    "a group": b"From: Board: evil@else.test, Evil <evil@else.test>;\r\n",
    "groups within groups": b"From: " + b"a:" * 2000 + b"evil@else.test" + b";" * 2000 + b"\r\n",
    "angles within angles": b"From: <<<<evil@else.test>>>>\r\n",
    "a source route": b"From: <@else.test,@b.test:evil@else.test>\r\n",
    "an address as a name": b"From: evil@else.test <alice@own.test>\r\n",
    "an address behind": b"From: <alice@own.test> evil@else.test\r\n",
    "encoded words": b"From: =?utf-8?q?evil=40else.test?= <evil@else.test>\r\n",
    "bytes above 127": b"From: \xff\xfe <evil@else.test>\r\n",
    "an empty field": b"From:\r\n",
    "no field": b"",
    "a field of 60 KB": b"From: " + b"x" * 60_000 + b"@else.test\r\n",
}


@pytest.mark.parametrize("what", MASQUERADES)
def test_bombs_for_the_masquerade(options: Options, what: str) -> None:
    """Nobody but the sender is shown in From, whatever was written there; and the session goes on."""
    with Wire(("127.0.0.1", options.daemon.port2)) as wire:
        wire.hello()
        wire.tls()
        assert wire.say("EHLO x").startswith(b"250 ")
        assert wire.say(b"AUTH PLAIN " + base64.b64encode(b"\0alice\0correct horse")).startswith(b"235 ")
        wire.to_data(sender="alice@own.test")
        wire.send(b"Subject: x\r\n" + MASQUERADES[what] + b"X-End: x\r\n\r\nFrom: body" + END)
        answer = wire.reply()
        assert answer[:1] in b"25"
        assert wire.say("NOOP") == b"250 2.0.0 Ok"
        wire.say("QUIT")
    for data in options.taken(1 if answer.startswith(b"250 ") else 0):
        header = data.partition(b"\r\n\r\n")[0] + b"\r\n"
        fields = re.findall(rb"(?im)^from[ \t]*:((?:.*\r\n)(?:[ \t].*\r\n)*)", header)
        assert all(b"alice@own.test" in field for field in fields)
        for field in fields:
            plain = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", field, flags=re.DOTALL)
            assert b"evil@else.test" not in plain or b"(" in plain, field[:200]
