"""Thousands of clients that hold a session and do nothing with it."""

import contextlib
import socket

from support.hostile import Target

SESSIONS = 2000
NETWORKS = 4  # a network may have 2048 sessions, an address 1024
BYTES_A_SESSION = 16 << 10


def test_idle_and_half_open_sessions(target: Target) -> None:
    """All are greeted, each costs a bounded amount of memory, others are served meanwhile, and none is left."""
    before = {name: target.watch.rss_bytes(name) for name in ("smtp", "lookup", "queue")}
    with contextlib.ExitStack() as stack:
        clients = []
        for at in range(SESSIONS):
            source = (f"127.9.{at % NETWORKS}.1", 0)
            sock = socket.create_connection(("127.0.0.1", target.daemon.port), 20, source_address=source)
            clients.append(stack.enter_context(sock))
        assert all(client.recv(512).startswith(b"220 ") for client in clients)
        assert target.watch.sessions() == SESSIONS
        for at, client in enumerate(clients):
            if at % 4 == 1:
                client.sendall(b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\n")
            elif at % 4 == 2:
                client.sendall(b"EHLO client.test\r\nSTARTTLS\r\n")  # and then no handshake
        assert all(client.recv(4096).startswith(b"250") for client in clients[1::4])
        assert all(client.recv(4096).startswith(b"250") for client in clients[2::4])
        target.watch.serves()
        grown = {name: target.watch.rss_bytes(name) - size for name, size in before.items()}
        assert sum(grown.values()) < SESSIONS * BYTES_A_SESSION, grown
        for client in clients[3::4]:
            client.shutdown(socket.SHUT_WR)  # half-open: they will never say more
        assert all(client.recv(512) == b"" for client in clients[3::4])
        target.watch.serves()
