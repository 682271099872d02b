"""New mail: envelopes from lookup, bodies from smtp, and the answers to smtp.

Runs in queue. smtp may name a message id leased to it, once, and may give a body to a transaction
that has envelopes; envelopes come from lookup alone, so that smtp cannot forge one.
"""

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Envelope, generation_of, message_id_text, seat_of_session
from smtpd_ps.queue.group import FAILED, FULL, Committer, Reply
from smtpd_ps.queue.ids import BLOCK_IDS, LeaseError, LeaseVoid, Lessee, evpids_from
from smtpd_ps.queue.shared import Sender, Shared, Violation
from smtpd_ps.queue.store.records import RECORD_VERSION, StoredEnvelope, StoredMessage, checksum

MAX_ENVELOPES = 10_000  # of a transaction, after expansion
MAX_TRANSACTIONS = 20_000
ROOM_CHECK_MS = 1000

RCPT_OK = "2.1.5 Destination address valid: Recipient ok"
TOO_MANY = "4.5.3 Too many recipients"
BUSY = "4.3.2 Too many transactions, try again later"
NO_RECIPIENTS = "5.5.1 No valid recipients"

_Key = tuple[int, int]  # session, transaction


class _Transaction:
    __slots__ = ("envelopes", "file_msgid", "first", "id_used")

    def __init__(self, first: int) -> None:
        self.first = first  # lower half of the first envelope's id
        self.envelopes: list[Envelope] = []
        self.file_msgid = 0  # of the body file handed out, if any
        self.id_used = False  # by BodyOpen


class Intake:
    """Transactions by session and number, and the ids of each smtp process."""

    def __init__(self, shared: Shared, committer: Committer) -> None:
        self._s = shared
        self._committer = committer
        self._smtp: dict[int, Sender] = {}
        self._lessees: dict[int, Lessee] = {}
        self._open: dict[_Key, _Transaction] = {}
        self._room = True
        self._room_checked_ms = -ROOM_CHECK_MS

    def start(self) -> None:
        """Give every smtp process its first ids."""
        self._smtp = self._s.peers.smtp
        for seat in self._smtp:
            self.join(seat)

    def join(self, seat: int) -> None:
        """Give one smtp process its first ids."""
        self._lessees[seat] = Lessee(self._s.ids)
        self._lease(seat)

    def leave(self, seat: int) -> None:
        """An smtp process has left: forget its transactions, and its ids."""
        self._smtp.pop(seat, None)
        lessee = self._lessees.pop(seat, None)
        if lessee is not None:
            lessee.give_back()
        for key in [key for key in self._open if seat_of_session(key[0]) == seat]:
            self._drop_file(self._open.pop(key))

    def under_way(self) -> int:
        """How many transactions are open."""
        return len(self._open)

    @property
    def idle(self) -> bool:
        """Whether no transaction is open."""
        return not self._open

    def _lease(self, seat: int) -> None:
        lessee = self._lessees[seat]
        while lessee.left < BLOCK_IDS // 2:
            self._smtp[seat].send(m.IdLease(lessee.lease()))

    def _has_room(self) -> bool:
        now_ms = self._s.now_ms()
        if not 0 <= now_ms - self._room_checked_ms < ROOM_CHECK_MS:
            self._room_checked_ms = now_ms
            try:
                room = self._s.bodies.has_room()
            except OSError as error:
                self._s.log.error(f"cannot tell how much room the spool has: {error}")
                room = False
            if room != self._room:
                self._s.log.warning(f"spool has {'room again' if room else 'no room left: new mail is refused'}")
            self._room = room
        return self._room

    # From lookup.

    def rcpt_accept(self, generation: int, message: m.RcptAccept) -> None:
        """Envelopes of one more recipient, from lookup of a generation."""
        seat = seat_of_session(message.session)
        channel = self._smtp.get(seat)
        if generation_of(seat) != generation or channel is None:
            raise Violation(f"lookup {generation}: RcptAccept for a session of no smtp process of its own ({seat})")
        key = (message.session, message.transaction)
        transaction = self._open.get(key)
        code, text = 250, RCPT_OK
        first = count = 0
        if not self._has_room():
            code, text = FULL
        elif transaction is None and len(self._open) >= MAX_TRANSACTIONS:
            code, text = 451, BUSY
        elif transaction is not None and len(transaction.envelopes) + len(message.envelopes) > MAX_ENVELOPES:
            code, text = 452, TOO_MANY
        else:
            if transaction is None:
                transaction = self._open[key] = _Transaction(self._s.ids.random32())
            first, count = transaction.first + len(transaction.envelopes) & 0xFFFFFFFF, len(message.envelopes)
            transaction.envelopes.extend(message.envelopes)
        channel.send(m.RcptReply(message.session, message.transaction, message.number, code, text, first, count))

    # From smtp.

    def _use(self, seat: int, session: int, msgid: int) -> bool:
        """Whether the id may be used. Raises Violation where smtp breaks the contract."""
        if seat_of_session(session) != seat:
            raise Violation(f"smtp {seat} names a session of smtp {seat_of_session(session)}")
        try:
            self._lessees[seat].use(msgid)
        except LeaseError as error:
            raise Violation(f"smtp {seat}: {error}") from None
        except LeaseVoid as error:
            self._s.log.warning(f"smtp {seat}: {error}")
            return False
        self._lease(seat)
        return True

    def commit(self, seat: int, message: m.Commit) -> None:
        """A small message is complete."""
        usable = self._use(seat, message.session, message.msgid)
        transaction = self._open.pop((message.session, message.transaction), None)
        if transaction is not None and transaction.file_msgid:
            raise Violation(f"smtp {seat}: Commit after BodyOpen")
        if not usable:
            self._smtp[seat].send(m.Committed(message.session, message.transaction, *FAILED))
            return
        body = message.body
        self._store(
            seat, message, transaction, message.eight_bit, body, len(body), crc=checksum(body),
        )  # fmt: skip

    def body_open(self, seat: int, message: m.BodyOpen) -> None:
        """A message outgrows its channel: give it a file."""
        usable = self._use(seat, message.session, message.msgid)
        transaction = self._open.get((message.session, message.transaction))
        if transaction is not None and transaction.file_msgid:
            raise Violation(f"smtp {seat}: a second BodyOpen")
        channel = self._smtp[seat]
        if transaction is None:
            channel.send(m.BodyRefused(message.session, message.transaction, NO_RECIPIENTS))
            return
        transaction.id_used = True
        if not usable or not self._has_room():
            channel.send(m.BodyRefused(message.session, message.transaction, FULL[1] if usable else FAILED[1]))
            return
        try:
            fd = self._s.bodies.create(message.msgid)
        except OSError as error:
            self._s.log.error(f"no body file for msgid={message_id_text(message.msgid)}: {error}")
            channel.send(m.BodyRefused(message.session, message.transaction, FULL[1]))
            return
        transaction.file_msgid = message.msgid
        channel.send(m.BodyFile(message.session, message.transaction), fd)

    def commit_file(self, seat: int, message: m.CommitFile) -> None:
        """A large message is complete in its file."""
        transaction = self._open.pop((message.session, message.transaction), None)
        if message.session >> 56 != seat:
            raise Violation(f"smtp {seat} names a session of smtp {message.session >> 56}")
        if transaction is None or transaction.file_msgid != message.msgid:
            raise Violation(f"smtp {seat}: CommitFile without its BodyOpen")
        self._store(seat, message, transaction, message.eight_bit, None, message.size_bytes, message.body_crc)

    def _store(
        self, seat: int, message: m.Commit | m.CommitFile, transaction: _Transaction | None,
        eight_bit: bool, body: bytes | None, size_bytes: int, crc: int,
    ) -> None:  # fmt: skip
        channel, session, number = self._smtp[seat], message.session, message.transaction
        if transaction is None:
            channel.send(m.Committed(session, number, 554, NO_RECIPIENTS))
            return
        now_ms, msgid = self._s.now_ms(), message.msgid
        envelopes = transaction.envelopes
        evpids = evpids_from(transaction.first, msgid, len(envelopes))
        stored = StoredMessage(
            RECORD_VERSION, msgid, now_ms, size_bytes, eight_bit, body is None, crc,
            {
                evpid: StoredEnvelope(envelope, now_ms)
                for evpid, envelope in zip(evpids, envelopes, strict=True)
            },
        )  # fmt: skip

        def done(reply: Reply) -> None:
            channel.send(m.Committed(session, number, reply.code, reply.text))

        self._committer.insert(stored, body, done)

    def abort(self, seat: int, message: m.Abort) -> None:
        """The transaction came to nothing."""
        transaction = self._open.pop((message.session, message.transaction), None)
        if transaction is not None:
            self._drop_file(transaction)
        if transaction is None or not transaction.id_used:
            self._lessees[seat].forgo()
            self._lease(seat)

    def _drop_file(self, transaction: _Transaction) -> None:
        if transaction.file_msgid:
            try:
                self._s.bodies.remove(transaction.file_msgid)
            except OSError as error:  # swept at the next start
                self._s.log.warning(f"body {message_id_text(transaction.file_msgid)} not removed: {error}")
