"""A name server on loopback in threads of the test, for programs that ask one by UDP."""

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = dict[tuple[str, str], list[str]]  # records as text by name and type; what is not there is NXDOMAIN


class NameServer:
    """On loopback; keeps the question for the name in `held` until `go`."""

    def __init__(self, zone: Zone) -> None:
        self._zone, self.held, self.go = zone, "", threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, address = self._socket.recvfrom(4096)
            if data == b"stop":
                return
            query = dns.message.from_wire(data)
            name = query.question[0].name.to_text(omit_final_dot=True).lower()
            if name == self.held:
                threading.Thread(target=self._later, args=(query, name, address), daemon=True).start()
            else:
                self._reply(query, name, address)

    def _later(self, query: dns.message.Message, name: str, address: object) -> None:
        self.go.wait(30)
        self._reply(query, name, address)

    def _reply(self, query: dns.message.Message, name: str, address: object) -> None:
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        texts = self._zone.get((name, kind), [])
        if texts:
            quoted = ['"' + '" "'.join(text[at : at + 200] for at in range(0, len(text), 200)) + '"' for text in texts]
            reply.answer.append(dns.rrset.from_text(name + ".", 300, "IN", kind, *(quoted if kind == "TXT" else texts)))
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        self._socket.sendto(reply.to_wire(), address)  # type: ignore[arg-type]

    def stop(self) -> None:
        self.go.set()
        self._socket.sendto(b"stop", self._socket.getsockname())
        self._thread.join(30)
        self._socket.close()
