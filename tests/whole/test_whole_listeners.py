"""Options of listeners in the real daemon, seen by clients and by the server that the mail is relayed to."""

import contextlib
import re
import smtplib
import socket
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from dialogue_stage import proxy_header
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, running, wait_until
from support.faults import NEED_ROOT
from support.hostile import insecure_context
from support.ports import HERE, free_ports
from support.sink import Mail, Sink, sinking

pytestmark = pytest.mark.timeout(60)

CONFIG = """
pki main cert "{dir}/acme/live/fullchain.pem"
pki main key "{dir}/acme/live/privkey.pem"
smtp limit max-mails 2
smtp limit max-rcpt 3
table users { "ann" = "SECRET", "bob" = "SECRET" }
table own { "ann" = "ann@a.test, @ann.test", "bob" = "@" }
table names { "HERE" = "one.test", "127.0.0.1" = "two.test" }
listen on 127.0.0.1 port {port} hostnames <names>
listen on HERE port P0 hostnames <names>
listen on HERE port P1 mask-src no-dsn hostname mx.test
listen on HERE port P2 tls pki main auth-optional <users> received-auth hostname mx.test
listen on HERE port P3 smtps pki main auth <users> senders <own> hostname mx.test
listen on HERE port P4 smtps pki main auth <users> senders <own> masquerade hostname mx.test
listen on HERE port P5 proxy-v2 from { "127.0.0.2", "10.0.0.0/8" } hostname mx.test tag proxied
listen on HERE port P6 proxy-v2 hostname mx.test
listen on socket mask-src tag inside
action out relay host "smtp+notls://127.0.0.1:SINK"
match from src "192.0.2.7" for any reject
match from any tag inside for domain "inside.test" action out
match from any for domain "inside.test" reject
match from any for any action out
"""


class Listening:
    """The daemon with a listener for each set of options."""

    def __init__(self, daemon: Daemon, sink: Sink, ports: list[int]) -> None:
        self.daemon, self.sink, self.ports = daemon, sink, ports

    def client(self, number: int) -> smtplib.SMTP:
        """A client that has said EHLO, under TLS where it can, of listener `number`."""
        if number in (3, 4):
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                HERE, self.ports[number], "client.test", timeout=20, context=insecure_context()
            )
        else:
            client = smtplib.SMTP(HERE, self.ports[number], "client.test", timeout=20)
        client.ehlo()
        if client.has_extn("starttls"):
            client.starttls(context=insecure_context())
            client.ehlo()
        return client

    def arrived(self, subject: str) -> Mail:
        """The mail with this subject, once it is there."""
        line = f"\r\nSubject: {subject}\r\n".encode()
        wait_until(f"{subject} arrives", lambda: any(line in mail.data for mail in list(self.sink.mails)))
        return next(mail for mail in self.sink.mails if line in mail.data)


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    """One daemon for all of these."""
    secret = cli("smtpctl_ps", "encrypt", "secret").stdout.strip()
    ports = free_ports(7)
    with sinking() as sink:
        config = CONFIG.replace("HERE", HERE).replace("SINK", str(sink.port)).replace("SECRET", secret)
        for number, port in enumerate(ports):
            config = config.replace(f"P{number} ", f"{port} ")
        with running(config, prepare=lambda folder: write_acme(folder / "acme", make_key("ecdsa"))) as daemon:
            yield Listening(daemon, sink, ports)


def message(subject: str, *header: str) -> str:
    return "\r\n".join((*header, f"Subject: {subject}", "", "body", ""))


def test_names_by_the_address_that_was_connected_to(listening: Listening) -> None:
    """`hostnames`: the greeting, EHLO and Received have the name of that address."""
    for address, port, name in (
        (HERE, listening.ports[0], b"one.test"),
        ("127.0.0.1", listening.daemon.port, b"two.test"),
    ):
        client = smtplib.SMTP(timeout=20)
        assert client.connect(address, port)[1].startswith(name)
        assert client.ehlo("client.test")[1].startswith(name + b" Hello")
        client.sendmail("a@client.test", ["b@x.test"], message(name.decode()))
        client.quit()
        assert b"by " + name + b" (smtpd_ps)" in listening.arrived(name.decode()).data


def test_the_client_is_not_named(listening: Listening) -> None:
    """`mask-src` and `no-dsn`: neither name nor address of the client in the message, no DSN offered or taken."""
    with listening.client(1) as client:
        assert not client.has_extn("dsn")
        assert client.mail("a@client.test", ["RET=HDRS"])[0] == 503
        client.sendmail("a@client.test", ["b@x.test"], message("masked"))
    received = listening.arrived("masked").data.partition(b"\r\nSubject")[0]
    assert b"client.test" not in received and HERE.encode() not in received
    assert received.startswith(b"Received: \r\n\tby mx.test (smtpd_ps) with ESMTP id ")


def test_the_user_is_named(listening: Listening) -> None:
    """`auth-optional received-auth`: mail without a password says auth=no, mail with one says whose."""
    with listening.client(2) as client:
        client.sendmail("a@client.test", ["b@x.test"], message("anonymous"))
        client.login("ann", "secret")
        client.sendmail("a@client.test", ["b@x.test"], message("named"))
    assert re.search(rb"with ESMTPS id \w+ \(TLSv1\.3:\S+:NO\) auth=no\r\n", listening.arrived("anonymous").data)
    assert re.search(rb"with ESMTPSA id \w+ \(TLSv1\.3:\S+:NO\) auth=yes user=ann\r\n", listening.arrived("named").data)


def test_senders(listening: Listening) -> None:
    """A user sends as addresses and domains of the table; "@" is any, the null sender too; nobody without AUTH."""
    with listening.client(3) as client:
        assert client.mail("ann@a.test")[0] == 530
        client.login("ann", "secret")
        codes = []
        for sender in ("ann@a.test", "x@ann.test", "bob@a.test", "x@sub.ann.test", ""):
            codes.append(client.mail(sender)[0])
            client.rset()
        assert codes == [250, 250, 530, 530, 530]
    with listening.client(3) as client:
        client.login("bob", "secret")
        assert client.mail("anyone@else.test")[0] == 250
        client.rset()
        assert client.mail("")[0] == 250


@pytest.mark.parametrize(
    "given,shown",
    [
        ("boss@b.test", "ann@a.test"),
        ("The Boss <boss@b.test>", "The Boss <ann@a.test>"),
        ("The\r\n Boss\r\n\t<boss@b.test>", "The\r\n Boss\r\n\t<ann@a.test>"),
        ('"Boss, The" (him) <boss@b.test> (again)', '"Boss, The" (him) <ann@a.test> (again)'),
        ("=?utf-8?q?Chef_=C3=BC?= <boss@b.test>", "=?utf-8?q?Chef_=C3=BC?= <ann@a.test>"),
        ("Board: boss@b.test, x@b.test;", "Board: ann@a.test, ann@a.test;"),
        ("boss@b.test, Other <other@b.test>", "ann@a.test, Other <ann@a.test>"),
        ("boss", "ann@a.test"),
        ("<<boss@b.test", "ann@a.test"),
        ('"boss@b.test"', "ann@a.test"),
    ],
)
def test_masquerade(listening: Listening, given: str, shown: str) -> None:
    """From arrives with the sender's address, in every form it may have; other fields and the body as they were."""
    subject = f"masquerade {zlib.crc32(given.encode())}"
    with listening.client(4) as client:
        client.login("ann", "secret")
        client.sendmail("ann@a.test", ["b@x.test"], message(subject, f"From: {given}", "Reply-To: boss@b.test"))
    data = listening.arrived(subject).data
    header = data.partition(b"\r\n\r\n")[0].decode()
    field = re.search(r"^From: ([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", header, re.M)
    assert field and field[1] == shown
    assert "\r\nReply-To: boss@b.test\r\n" in header


def test_a_submission_is_completed(listening: Listening) -> None:
    """On loopback: our domain for bare names, Date and Message-ID, no Bcc."""
    with listening.client(1) as client:
        client.sendmail(
            "a@client.test", ["b@x.test"], message("completed", "From: me", "To: you, b@x.test", "Bcc: secret@x.test")
        )
    data = listening.arrived("completed").data
    assert b"\r\nFrom: me@mx.test\r\nTo: you@mx.test, b@x.test\r\n" in data
    assert b"secret@x.test" not in data
    assert re.search(rb"\r\nDate: \w{3}, .*\r\nMessage-ID: <[0-9a-f]{16}@mx.test>\r\n", data)


def test_limits(listening: Listening) -> None:
    """`max-rcpt` is 451 4.5.3 for those beyond, `max-mails` 452 4.5.3 for the next transaction."""
    with listening.client(1) as client:
        client.mail("a@client.test")
        assert [client.rcpt(f"r{at}@x.test")[0] for at in range(5)] == [250, 250, 250, 451, 451]
        assert client.data(message("limited"))[0] == 250
        client.sendmail("a@client.test", ["b@x.test"], message("second"))
        assert client.mail("a@client.test") == (452, b"4.5.3 Too many recipients: Too many messages sent")
    assert listening.arrived("limited").recipients == ["r0@x.test", "r1@x.test", "r2@x.test"]


def connect_from(address: str, port: int) -> socket.socket:
    return socket.create_connection((HERE, port), 20, source_address=(address, 0))


def said(sock: socket.socket, data: bytes) -> bytes:
    """All that is said to `data` until the server closes."""
    answer = b""
    with sock, contextlib.suppress(ConnectionError):
        sock.sendall(data)
        while piece := sock.recv(4096):
            answer += piece
    return answer


def test_who_may_be_a_proxy(listening: Listening) -> None:
    """`proxy-v2 from`: the header of a listed proxy is believed, by rules too; a stranger hears nothing at all."""
    port = listening.ports[5]
    session = b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@x.test>\r\nQUIT\r\n"
    believed = said(connect_from("127.0.0.2", port), proxy_header("192.0.2.8") + session)
    assert b"Hello client.test [192.0.2.8]" in believed and b"250 2.1.5" in believed
    refused = said(connect_from("127.0.0.2", port), proxy_header("192.0.2.7") + session)
    assert b"[192.0.2.7]" in refused and b"\r\n550 " in refused
    for address in ("127.0.0.1", "127.0.0.3"):
        assert said(connect_from(address, port), proxy_header("192.0.2.8") + session) == b""
    listening.daemon.wait_logged("smtp proxy address=127.0.0.3 refused")
    assert said(connect_from("127.0.0.2", port), session) == b""
    six = said(connect_from("127.0.0.2", port), proxy_header("2001:db8::8") + session)
    assert b"[2001:db8::8]" in six


def test_a_proxy_header_where_none_is_expected(listening: Listening) -> None:
    """A spoofed header on a plain listener is a bad command, and the address stays the client's own."""
    answer = said(connect_from("127.0.0.3", listening.ports[1]), proxy_header("192.0.2.8") + b"EHLO x\r\nQUIT\r\n")
    assert b"192.0.2.8" not in answer
    assert b"\r\n500 " in answer


def test_the_local_socket(listening: Listening) -> None:
    """Its options: the tag is what rules see, and the client is not named."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(listening.daemon.state / "run/smtpd_ps.sock"))
        sock.sendall(b"EHLO localhost\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@inside.test>\r\nDATA\r\n")
        sock.sendall(message("from inside").encode() + b".\r\nQUIT\r\n")
        answer = b""
        while piece := sock.recv(4096):
            answer += piece
    assert b"\r\n354 " in answer and b"Message accepted" in answer
    data = listening.arrived("from inside").data
    assert data.startswith(b"Received: \r\n\tby ")
    with listening.client(1) as client:
        client.mail("a@client.test")
        assert client.rcpt("b@inside.test")[0] == 550


@NEED_ROOT
def test_an_interface_whose_addresses_change(tmp_path: Path) -> None:
    """A reload listens on the addresses that an interface has got, and no longer on those it has lost."""
    address = f"198.51.100.{1 + sum(HERE.encode()) % 250}"
    config = """
listen on lo inet4 port {port} hostname mx.test
match from any for any reject
"""

    def greets() -> bool:
        try:
            with socket.create_connection((address, daemon.port), 5) as sock:
                return sock.recv(512).startswith(b"220 ")
        except OSError:
            return False

    with running(config) as daemon:
        assert not greets()
        if subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], capture_output=True).returncode:
            pytest.skip("may not add an address to the loopback interface")
        try:
            assert not greets()
            daemon.ctl("reload")
            wait_until("the new address is served", greets)
            assert daemon.greets()
        finally:
            subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)
        daemon.ctl("reload")
        wait_until("the old listener is closed", lambda: address not in listening_on(daemon.port))
        assert daemon.greets()


def listening_on(port: int) -> str:
    """The local addresses on which this TCP port is listened on."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    found = [words[1].split(":") for words in lines if words[3] == "0A"]
    packed = [bytes.fromhex(where)[::-1] for where, number in found if int(number, 16) == port]
    return " ".join(socket.inet_ntoa(one) for one in packed)
