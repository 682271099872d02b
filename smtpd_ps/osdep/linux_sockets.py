"""Sockets by inode: /proc/PID/net/{tcp,udp,unix} and, for who is at the other end, sock_diag(7).

Runs in smtpctl_ps as root. Parses only what the kernel wrote.
"""

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_TCP_LISTEN = 0x0A
_UNIX_LISTENING = 0x10000  # __SO_ACCEPTCON
_UNIX_KINDS = {1: "stream", 2: "dgram", 5: "seqpacket"}

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SHOW_NAME, _SHOW_PEER = 1, 4
_ATTRIBUTE_NAME, _ATTRIBUTE_PEER = 0, 2
_HEADER = struct.Struct("=IHHII")
_UNIX_REQUEST = struct.Struct("=BBHIIIII")
_UNIX_ANSWER = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Socket:
    """What is known of one socket; `peer` is the inode at the other end of a Unix socket, or 0."""

    kind: str  # as policies name it
    detail: str = ""
    peer: int = 0


def inet_sockets(text: str, kind: str, tcp: bool) -> dict[int, Socket]:
    """By inode, from /proc/net/tcp and its like."""
    out = {}
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10:
            continue
        listening = tcp and int(fields[3], 16) == _TCP_LISTEN
        local = _endpoint(fields[1])
        detail = local if listening else f"{local} to {_endpoint(fields[2])}"
        out[int(fields[9])] = Socket(f"{kind}-listener" if listening else kind, detail)
    return out


def _endpoint(text: str) -> str:
    """ "0100007F:0019" as 127.0.0.1:25. Words are in the machine's byte order."""
    address, port = text.split(":")
    words = [struct.pack("=I", int(address[at : at + 8], 16)) for at in range(0, len(address), 8)]
    raw = b"".join(words)
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    shown = socket.inet_ntop(family, raw)
    return f"{shown}:{int(port, 16)}" if family == socket.AF_INET else f"[{shown}]:{int(port, 16)}"


def unix_sockets(text: str, peers: dict[int, int], names: dict[int, str]) -> dict[int, Socket]:
    """By inode, from /proc/net/unix; `peers` and `names` are what sock_diag says of each inode."""
    out = {}
    for line in text.splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) < 7:
            continue
        flags, kind, inode = int(fields[3], 16), int(fields[4], 16), int(fields[6])
        path = fields[7] if len(fields) > 7 else ""
        peer = peers.get(inode, 0)
        out[inode] = Socket(_unix_kind(flags, kind, path, names.get(peer, "")), path or names.get(peer, ""), peer)
    return out


def _unix_kind(flags: int, kind: int, path: str, peer_path: str) -> str:
    word = _UNIX_KINDS.get(kind, "")
    if word == "dgram":
        return "log"  # the only datagram socket that policies know is syslog's
    if word != "stream":
        return "unix-other"
    if flags & _UNIX_LISTENING:
        return "unix-listener"
    if path:
        return "unix-client"  # accepted on a listener: it has the listener's name
    return "unix-peer" if peer_path else "channel"


def read_sockets(pid: int) -> dict[int, Socket]:
    """Every socket in the network namespace of `pid`, by inode. Raises OSError."""
    net = Path(f"/proc/{pid}/net")
    out: dict[int, Socket] = {}
    for name, kind, tcp in (("tcp", "tcp", True), ("tcp6", "tcp", True), ("udp", "udp", False), ("udp6", "udp", False)):
        path = net / name
        if path.exists():
            out |= inet_sockets(path.read_text("ascii"), kind, tcp)
    peers, names = _ask_kernel()
    out |= unix_sockets((net / "unix").read_text("utf-8", "replace"), peers, names)
    return out


def _ask_kernel() -> tuple[dict[int, int], dict[int, str]]:
    """Peers and names of all Unix sockets by inode; both empty where sock_diag is not there."""
    body = _UNIX_REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _SHOW_NAME | _SHOW_PEER, 0, 0)
    request = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body
    answers = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
            sock.settimeout(5)
            sock.send(request)
            while True:
                data = sock.recv(1 << 18)
                answers.append(data)
                if not data or _ends(data):
                    break
    except OSError:
        return {}, {}
    return parse_unix_answers(b"".join(answers))


def _ends(data: bytes) -> bool:
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _flags, _sequence, _pid = _HEADER.unpack_from(data, at)
        if kind in (_NLMSG_ERROR, _NLMSG_DONE) or length < _HEADER.size:
            return True
        at += (length + 3) & ~3
    return False


def parse_unix_answers(data: bytes) -> tuple[dict[int, int], dict[int, str]]:
    """(peer inode by inode, name by inode) of a dump of unix_diag_msg."""
    peers: dict[int, int] = {}
    names: dict[int, str] = {}
    at = 0
    while at + _HEADER.size + _UNIX_ANSWER.size <= len(data):
        length, kind, _flags, _sequence, _pid = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            break
        if kind == _SOCK_DIAG_BY_FAMILY:
            inode = _UNIX_ANSWER.unpack_from(data, at + _HEADER.size)[4]
            start, end = at + _HEADER.size + _UNIX_ANSWER.size, at + length
            while start + _ATTRIBUTE.size <= end:
                size, what = _ATTRIBUTE.unpack_from(data, start)
                value = data[start + _ATTRIBUTE.size : start + size]
                if what == _ATTRIBUTE_PEER:
                    peers[inode] = struct.unpack("=I", value[:4])[0]
                elif what == _ATTRIBUTE_NAME and value.strip(b"\0"):
                    names[inode] = value.rstrip(b"\0").decode("utf-8", "replace").replace("\0", "@")
                start += max(4, (size + 3) & ~3)
        at += (length + 3) & ~3
    return peers, names
