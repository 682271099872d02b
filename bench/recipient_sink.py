"""An SMTP sink that counts accepted recipients, as `mesg=N` on standard output. Usage: recipient_sink PORT.

A server may send one message with many recipients or many messages: W4 counts what both have in common.
"""

import asyncio
import signal
import sys


class RecipientSink:
    """All its connections count together."""

    def __init__(self) -> None:
        self.total = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        recipients = 0
        writer.write(b"220 sink.test ESMTP\r\n")
        try:
            while line := await reader.readline():
                match line[:4].upper():
                    case b"EHLO" | b"LHLO":
                        writer.write(b"250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                    case b"DATA":
                        writer.write(b"354 go\r\n")
                        while await reader.readline() not in (b".\r\n", b""):
                            pass
                        self.total += recipients
                        recipients = 0
                        print(f"mesg={self.total}", flush=True)
                        writer.write(b"250 ok\r\n")
                    case b"QUIT":
                        writer.write(b"221 bye\r\n")
                        return
                    case verb:
                        recipients += verb == b"RCPT"
                        writer.write(b"250 ok\r\n")
                await writer.drain()
        except ConnectionError:
            pass  # whose mail was counted has its 250 in the send buffer
        finally:
            writer.close()


async def main(port: int) -> None:
    """Until SIGTERM."""
    server = await asyncio.start_server(RecipientSink().serve, "127.0.0.1", port, backlog=500, limit=1 << 20)
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    await done.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
