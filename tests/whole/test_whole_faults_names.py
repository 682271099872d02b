"""Name servers that are dead, slow or lying: recipients are answered at once, mail waits, nothing bounces."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from support.daemon import Daemon, wait_until
from support.faults import NEED_ROOT, cared_for, number_of, offer
from support.sink import sinking

pytestmark = [NEED_ROOT, pytest.mark.timeout(150)]

MX_ADDRESS = "127.0.0.77"
CONFIG = """
smtp limit max-mails 100000
listen on 127.0.0.1 port {port} hostname mx.test
action out relay
match from any for any action out
"""
FAULTS = ("silent", "servfail", "refused", "garbage", "wrong-id", "other-name", "no-question", "empty", "lame-mx",
          "mx-servfail-address", "cname-loop")  # fmt: skip


class NameServer:
    """Answers for `*.test`; the first label says what is wrong with it, until `healed`."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.healed = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, client = self.socket.recvfrom(4096)
                query = dns.message.from_wire(data)
                name = str(query.question[0].name)
                fault = "" if self.healed else name.split(".")[0]
                if fault == "slow":
                    threading.Timer(3.0, lambda q=query, c=client: self._send(self._good(q).to_wire(), c)).start()
                    continue
                for reply in self._replies(query, fault, name):
                    self._send(reply, client)

    def _send(self, reply: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            self.socket.sendto(reply, client)

    @staticmethod
    def _good(query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.AA
        question = query.question[0]
        kind = question.rdtype.name
        text = {"MX": f"10 host-{question.name}", "A": MX_ADDRESS}.get(kind)
        if text:
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, text))
        return reply

    def _replies(self, query: dns.message.Message, fault: str, name: str) -> list[bytes]:
        good = self._good(query)
        match fault:
            case "silent":
                return []
            case "servfail" | "refused":
                good.answer.clear()
                good.set_rcode(dns.rcode.SERVFAIL if fault == "servfail" else dns.rcode.REFUSED)
            case "garbage":
                return [b"\xff" * 3, good.to_wire()[:20], good.to_wire()[:-3] + b"\xc0\xc0\xff"]
            case "wrong-id":
                good.answer.clear()
                good.set_rcode(dns.rcode.NXDOMAIN)
                good.id ^= 1
            case "other-name" | "no-question":
                good.answer.clear()
                good.set_rcode(dns.rcode.NXDOMAIN)
                if fault == "no-question":
                    good.question.clear()
                else:
                    lied = dns.message.make_query("elsewhere.test", query.question[0].rdtype)
                    good.question[:] = lied.question
            case "empty":
                return [b"", good.to_wire()[:12]]
            case "lame-mx":
                good.answer.clear()
                if query.question[0].rdtype.name == "MX":
                    good.answer.append(dns.rrset.from_text(name, 60, "IN", "MX", "10 host-silent.test."))
            case "mx-servfail-address" | "host-mx-servfail-address" if query.question[0].rdtype.name != "MX":
                good.answer.clear()
                good.set_rcode(dns.rcode.SERVFAIL)
            case "host-silent":
                return []
            case "cname-loop":
                good.answer.clear()
                good.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", name))
        return [good.to_wire()]


@pytest.fixture
def names() -> Iterator[NameServer]:
    """The server, closed afterwards."""
    server = NameServer()
    yield server
    server.socket.close()


def test_every_fault_of_dns_is_temporary(names: NameServer) -> None:
    """The mail waits, RCPT never does; a slow server's answer is used; when DNS works again all is delivered."""
    with (
        sinking(address=(MX_ADDRESS, 25)) as sink,
        cared_for(Daemon(CONFIG, resolver=f"127.0.0.1:{names.port}")) as daemon,
    ):
        daemon.start()
        began = time.monotonic()
        for number, fault in enumerate((*FAULTS, "slow")):
            assert offer(daemon, number, rcpt=f"user@{fault}.test") == 250
        assert time.monotonic() - began < 10, "accepting mail waited for DNS"
        wait_until("the slow domain's mail arrives", lambda: [number_of(m.data) for m in sink.mails] == [len(FAULTS)])
        for fault in FAULTS:
            wait_until(f"{fault} was given up for now", lambda f=fault: _outcome(daemon, f) == "TempFail", 60)
        assert daemon.queued() == len(FAULTS)
        assert "bounce" not in daemon.log and "PermFail" not in daemon.log
        names.healed = True
        time.sleep(10.5)  # how long delivery remembers that nobody could say
        daemon.schedule_until("all of it arrives", lambda: len(sink.mails) == len(FAULTS) + 1)
        daemon.wait_empty()
        assert daemon.stop() == 0


def _outcome(daemon: Daemon, fault: str) -> str:
    lines = [line for line in daemon.log.splitlines() if f"to=<user@{fault}.test>" in line and 'result="' in line]
    return lines[-1].split('result="')[1].split('"')[0] if lines else ""


def test_no_name_server_at_all() -> None:
    """Nothing listens: mail is accepted at once and stays queued with its reason."""
    with cared_for(Daemon(CONFIG, resolver="127.0.0.1:9")) as daemon:
        daemon.start()
        assert offer(daemon, 1, rcpt="user@anywhere.test") == 250
        wait_until("it was tried", lambda: _outcome(daemon, "anywhere") == "TempFail", 40)
        assert "Temporary failure in MX lookup" in daemon.ctl("show", "queue")
        assert "bounce" not in daemon.log
        assert daemon.stop() == 0
