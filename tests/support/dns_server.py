"""A name server on loopback, in the loop of the test, that answers, fails or lies as it is told."""

import socket
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from smtpd_ps.pure.hosts_file import ResolverSettings
from smtpd_ps.runtime.loop import Loop

Answer = Callable[["dns.message.Message"], list[bytes]]


class DnsServer:
    """`zone` holds records as text by (name, type); what else is asked for is NXDOMAIN with a SOA.

    `rcodes`, `silent`, `truncated` and `special` change that for single names.
    """

    def __init__(self, loop: Loop, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.loop = loop
        self.tcp = socket.create_server(address)
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address[0], self.port))
        for sock in (self.udp, self.tcp):
            sock.setblocking(False)
        self.zone: dict[tuple[str, str], list[str]] = {}
        self.ttl = 300
        self.soa_minimum: int | None = 60
        self.rcodes: dict[str, int] = {}
        self.silent: set[str] = set()
        self.truncated: set[str] = set()
        self.special: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, str]] = []  # transport, name, type
        self.ports: set[int] = set()
        self.ids: set[int] = set()
        self._streams: list[socket.socket] = []
        loop.read_on(self.udp.fileno(), self._on_udp)
        loop.read_on(self.tcp.fileno(), self._on_accept)

    @property
    def settings(self) -> ResolverSettings:
        return ResolverSettings((("127.0.0.1", self.port),), timeout_secs=0.1, attempts=2)

    def count(self, name: str) -> int:
        return sum(1 for _transport, asked, _kind in self.asked if asked == name)

    def _on_udp(self) -> None:
        data, address = self.udp.recvfrom(4096)
        self.ports.add(address[1])
        for reply in self._replies(data, "udp"):
            self.udp.sendto(reply, address)

    def _on_accept(self) -> None:
        stream, _address = self.tcp.accept()
        self._streams.append(stream)
        self.loop.read_on(stream.fileno(), lambda: self._on_stream(stream))

    def _on_stream(self, stream: socket.socket) -> None:
        data = stream.recv(4096)
        self.loop.forget(stream.fileno())
        if data:
            for reply in self._replies(data[2:], "tcp"):
                stream.sendall(len(reply).to_bytes(2, "big") + reply)
        stream.close()

    def _replies(self, data: bytes, transport: str) -> list[bytes]:
        query = dns.message.from_wire(data)
        self.ids.add(query.id)
        asked = query.question[0]
        name = asked.name.to_text(omit_final_dot=True)
        self.asked.append((transport, name, dns.rdatatype.to_text(asked.rdtype)))
        if name in self.silent:
            return []
        if name in self.special:
            return self.special[name](query)
        reply = self.reply(query)
        if transport == "udp" and name in self.truncated:
            reply.answer.clear()
            reply.flags |= dns.flags.TC
        return [reply.to_wire()]

    def reply(self, query: "dns.message.Message") -> "dns.message.Message":
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        if name in self.rcodes:
            reply.set_rcode(dns.rcode.Rcode(self.rcodes[name]))
            return reply
        for _ in range(20):
            if (name, kind) in self.zone:
                reply.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", kind, *self.zone[name, kind]))
                return reply
            if (name, "CNAME") not in self.zone:
                break
            target = self.zone[name, "CNAME"][0]
            reply.answer.append(dns.rrset.from_text(name + ".", self.ttl, "IN", "CNAME", target))
            name = target.rstrip(".")
        if not any(known == name for known, _kind in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        if self.soa_minimum is not None:
            soa = f"ns.test. root.test. 1 2 3 4 {self.soa_minimum}"
            reply.authority.append(dns.rrset.from_text("test.", 3600, "IN", "SOA", soa))
        return reply

    def close(self) -> None:
        for sock in (self.udp, self.tcp):
            self.loop.forget(sock.fileno())
            sock.close()
        for stream in self._streams:
            stream.close()


def run_until(loop: Loop, done: Callable[[], bool], limit_secs: float = 60.0) -> None:
    """Turn the loop until `done()`; fails the test when that takes too long."""
    end = loop.now() + limit_secs
    while not done():
        assert loop.now() < end, "nothing happened in time"
        loop.turn(0.05)
