"""A small SMTP and LMTP server in a thread, for the tests of delivery."""

import contextlib
import socket
import threading
from dataclasses import dataclass, field


@dataclass
class Script:
    """How the server behaves; a reply of None closes the connection instead."""

    banner: bytes | None = b"220 sink ESMTP\r\n"
    offers: tuple[bytes, ...] = (b"PIPELINING", b"8BITMIME", b"SIZE 1000000", b"DSN")
    knows_ehlo: bool = True
    lmtp: bool = False
    mail: bytes | None = b"250 2.1.0 ok\r\n"
    rcpt: dict[bytes, bytes] = field(default_factory=dict)  # by address
    max_rcpts: int = 0  # 452 beyond
    end: bytes | None = b"250 2.0.0 stored\r\n"
    tls: object = None  # an SSLContext
    implicit_tls: bool = False
    break_tls: bool = False
    end_before_close: int = 0  # close after so many messages, without a word


class Sink:
    """Listens on loopback or a Unix socket; `messages` holds (sender, recipients, body)."""

    def __init__(self, script: Script, path: str = "") -> None:
        self.script = script
        self.messages: list[tuple[bytes, list[bytes], bytes]] = []
        self.commands: list[bytes] = []
        self.sessions = 0
        self.chunks: list[bytes] = []  # as received
        self.news = threading.Condition()
        if path:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
        else:
            self.listener = socket.socket()
            self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port = self.listener.getsockname()[1] if not path else 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sessions += 1
            self._open.append(sock)
            threading.Thread(target=self._serve_quietly, args=(sock,), daemon=True).start()

    def _serve_quietly(self, sock: socket.socket) -> None:
        held = [sock]
        try:
            self._serve(sock, held)
        except (OSError, EOFError):
            pass  # the client left, or the test has ended
        finally:
            for each in held:
                each.close()

    def _serve(self, sock: socket.socket, held: list[socket.socket]) -> None:
        script, buffer = self.script, b""
        secure = False

        def line() -> bytes:
            nonlocal buffer
            while b"\r\n" not in buffer:
                data = sock.recv(65536)
                if not data:
                    raise EOFError
                self.chunks.append(data)
                buffer += data
            got, _, buffer = buffer.partition(b"\r\n")
            return got

        def body() -> bytes:
            nonlocal buffer
            while not (buffer.startswith(b".\r\n") or b"\r\n.\r\n" in buffer):
                data = sock.recv(65536)
                if not data:
                    raise EOFError
                self.chunks.append(data)
                buffer += data
            if buffer.startswith(b".\r\n"):
                buffer = buffer[3:]
                return b""
            text, _, buffer = buffer.partition(b"\r\n.\r\n")
            lines = (text + b"\r\n").split(b"\r\n")
            return b"\r\n".join(each[1:] if each.startswith(b".") else each for each in lines)

        if script.implicit_tls:
            sock = script.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)  # type: ignore[attr-defined]
            held.append(sock)
            sock.do_handshake()
            secure = True
        if script.banner is None:
            return
        sock.sendall(script.banner)
        sender, rcpts, count = b"", [], 0
        while True:
            command = line()
            self.commands.append(command)
            verb = command[:4].upper()
            if verb == b"EHLO" and not script.knows_ehlo:
                sock.sendall(b"502 5.5.1 what\r\n")
            elif verb == b"HELO":
                sock.sendall(b"250 sink\r\n")
            elif verb in (b"EHLO", b"LHLO"):
                offers = list(script.offers)
                if (script.tls or script.break_tls) and not secure:
                    offers.append(b"STARTTLS")
                lines = [b"sink", *offers]
                sock.sendall(
                    b"".join(
                        b"250%c%s\r\n" % (b" "[0] if at == len(lines) - 1 else b"-"[0], each)
                        for at, each in enumerate(lines)
                    )
                )
            elif verb == b"STAR":
                sock.sendall(b"220 go\r\n")
                if script.break_tls:
                    sock.recv(1000)
                    sock.sendall(b"this is no TLS\r\n")
                    return
                sock = script.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)  # type: ignore[attr-defined]
                held.append(sock)
                sock.do_handshake()
                secure = True
            elif verb == b"AUTH":
                sock.sendall(b"235 2.7.0 welcome\r\n")
            elif verb == b"MAIL":
                if script.mail is None:
                    return
                sender, rcpts = command, []
                sock.sendall(script.mail)
            elif verb == b"RCPT":
                address = command[command.index(b"<") + 1 : command.index(b">")]
                reply = script.rcpt.get(address, b"250 2.1.5 ok\r\n")
                if script.max_rcpts and len(rcpts) >= script.max_rcpts:
                    reply = b"452 4.5.3 too many recipients\r\n"
                if reply.startswith(b"2"):
                    rcpts.append(address)
                sock.sendall(reply)
            elif verb == b"DATA":
                if not rcpts:
                    sock.sendall(b"503 5.5.1 no recipients\r\n")
                    continue
                sock.sendall(b"354 go\r\n")
                text = body()
                if script.end is None:
                    return
                count += 1
                with self.news:
                    self.messages.append((sender, rcpts, text))
                    self.news.notify_all()
                sock.sendall(script.end * (len(rcpts) if script.lmtp else 1))
                if count == script.end_before_close:
                    return
            elif verb == b"RSET":
                sock.sendall(b"250 ok\r\n")
            elif verb == b"QUIT":
                sock.sendall(b"221 bye\r\n")
                return
            else:
                sock.sendall(b"500 what?\r\n")

    def close(self) -> None:
        self.listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
