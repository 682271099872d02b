"""The SMTP and LMTP client machine: messages, stage by stage (sessions are in test_smtp_client_sessions)."""

import pytest
from client_dialogue import BODY, OK, PERM, PLAIN, TEMP, answers, greeted, mail, say
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.values import Dsn, Notify
from smtpd_ps.pure.smtp_client_events import ClientOptions, Finished, Mail, Refused, StreamBody

# Transactions.


def test_one_by_one_without_pipelining():
    """Each command waits for its answer."""
    machine = greeted(PLAIN, b"SIZE")
    machine.send(mail("x@y.test", "z@y.test"))
    for want, reply in [
        (b"MAIL FROM:<a@b.test> SIZE=18\r\n", b"250 ok"),
        (b"RCPT TO:<x@y.test>\r\n", b"250 ok"),
        (b"RCPT TO:<z@y.test>\r\n", b"251 ok"),
        (b"DATA\r\n", b"354 go"),
    ]:
        assert machine.take_output() == want
        assert say(machine, reply) == []
    assert machine.take_output() == BODY + b".\r\n"
    assert answers(say(machine, b"250 2.0.0 stored")) == [(OK, "250 2.0.0 stored")] * 2
    assert machine.idle


def test_two_writes_with_pipelining():
    """Commands in one write, body and final dot in one."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    assert machine.take_output() == b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n"
    say(machine, b"250 ok", b"250 ok", b"354 go")
    assert machine.take_output() == BODY + b".\r\n"
    assert answers(say(machine, b"250 ok")) == [(OK, "250 ok")]


def test_the_next_message_goes_out_behind_the_dot():
    """RFC 2920 3.1: on a proven connection the next commands leave with the body."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    assert not machine.accepts_mail
    say(machine, b"250 ok", b"250 ok", b"354 go", b"250 one")
    machine.take_output()
    machine.send(mail("two@y.test"))
    machine.take_output()
    assert machine.accepts_mail
    machine.send(mail("three@y.test"))
    assert machine.take_output() == b""
    assert not machine.accepts_mail
    say(machine, b"250 ok", b"250 ok", b"354 go")
    assert machine.take_output() == BODY + b".\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<three@y.test>\r\nDATA\r\n"
    assert answers(say(machine, b"250 two", b"250 ok", b"250 ok", b"354 go")) == [(OK, "250 two")]
    assert machine.take_output() == BODY + b".\r\n"
    assert answers(say(machine, b"250 three")) == [(OK, "250 three")]
    assert machine.idle


def test_a_message_given_after_the_dot_goes_out_at_once():
    """The body is on its way: the next commands need not wait for its answer, and must not be forgotten."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    say(machine, b"250 ok", b"250 ok", b"354 go", b"250 one")
    machine.send(mail())
    say(machine, b"250 ok", b"250 ok", b"354 go")
    machine.take_output()
    machine.send(mail("next@y.test"))
    assert machine.take_output() == b"MAIL FROM:<a@b.test>\r\nRCPT TO:<next@y.test>\r\nDATA\r\n"
    assert answers(say(machine, b"250 two", b"250 ok", b"250 ok", b"354 go")) == [(OK, "250 two")]
    assert machine.take_output() == BODY + b".\r\n"


def test_a_message_waits_while_a_body_is_streamed():
    """Its commands go behind the streamed body, or start anew when the body was refused before."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    say(machine, b"250 ok", b"250 ok", b"354 go", b"250 one")
    machine.send(mail(body=None))
    say(machine, b"250 ok", b"250 ok", b"354 go")
    machine.take_output()
    machine.send(mail("next@y.test"))
    assert machine.take_output() == b""
    machine.body_sent()
    assert machine.take_output().startswith(b"MAIL FROM")
    assert answers(say(machine, b"250 two")) == [(OK, "250 two")]


def test_a_message_behind_a_refused_one_starts_anew():
    """No recipient was taken, so no body went out and neither did the next commands: RSET first."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    say(machine, b"250 ok", b"250 ok", b"354 go", b"250 one")
    machine.send(mail())
    machine.send(mail("next@y.test"))
    machine.take_output()
    assert answers(say(machine, b"250 ok", b"550 no", b"503 none")) == [(PERM, "550 no")]
    assert machine.take_output().startswith(b"RSET\r\nMAIL FROM")


MAIL, RCPT, DATA, END = range(4)


@pytest.mark.parametrize("offers", [(b"PIPELINING",), ()])
@pytest.mark.parametrize("stage", [MAIL, RCPT, DATA, END])
@pytest.mark.parametrize(("reply", "status"), [(b"450 4.1.1 later", TEMP), (b"550 5.1.1 no", PERM), (b"399 eh", TEMP)])
def test_refusals_by_stage(offers, stage, reply, status):
    """4xx is temporary, 5xx permanent, what makes no sense temporary; the connection stays usable."""
    machine = greeted(PLAIN, *offers)
    if stage is DATA and reply.startswith(b"3"):
        reply = b"499 eh"  # a 3xx other than 354 at DATA is another rule's
    machine.send(mail())
    replies = [b"250 ok", b"250 ok", b"354 go", b"250 ok"]
    replies[stage] = reply
    if offers:
        rest = [b"503 no recipients"] if stage in (MAIL, RCPT) else []
        given = replies[: stage + 1]
        if stage is MAIL:
            given.append(b"503 no sender")
        events = say(machine, *given, *rest)
    else:
        events = []
        for each in replies[: stage + 1]:
            events += say(machine, each)
    assert answers(events) == [(status, reply.decode())]
    assert machine.idle
    machine.take_output()
    machine.send(mail("next@y.test"))
    first = machine.take_output()
    assert first.startswith((b"RSET\r\n", b"MAIL"))
    if stage in (RCPT, DATA):
        assert first.startswith(b"RSET\r\n")


@pytest.mark.parametrize("offers", [(b"PIPELINING",), ()])
def test_after_a_reset_the_next_message_is_sent(offers):
    """RSET's answer comes first, then the transaction goes on as ever."""
    machine = greeted(PLAIN, *offers)
    machine.send(mail())
    if offers:
        say(machine, b"250 ok", b"550 no", b"503 no recipients")
    else:
        say(machine, b"250 ok")
        say(machine, b"550 no")
    machine.send(mail())
    events = []
    for reply in (b"250 reset", b"250 ok", b"250 ok", b"354 go", b"250 done"):
        events += say(machine, reply)
    assert answers(events) == [(OK, "250 done")]


def test_354_without_a_recipient_gets_the_lone_dot():
    """RFC 2920 3.1: an empty message to nobody, whose answer means nothing."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    machine.take_output()
    assert say(machine, b"250 ok", b"550 no", b"354 go") == []
    assert machine.take_output() == b".\r\n"
    assert answers(say(machine, b"554 no recipients")) == [(PERM, "550 no")]
    assert machine.idle


def test_a_recipient_refused_among_others():
    """Each recipient has its own answer; the message goes to the rest."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail("a@y", "b@y", "c@y"))
    events = say(machine, b"250 ok", b"250 ok", b"550 5.1.1 no", b"452 4.5.3 many", b"354 go", b"250 in")
    assert answers(events) == [(OK, "250 in"), (PERM, "550 5.1.1 no"), (TEMP, "452 4.5.3 many")]


def test_nonsense_at_data_ends_the_session():
    """A 250 to DATA: nothing can be believed; nothing was decided, so the message may go elsewhere."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    events = say(machine, b"250 ok", b"250 ok", b"250 eh")
    assert answers(events) == [None]
    assert isinstance(events[-1], Refused)


# Bodies.


def test_a_streamed_body():
    """The driver streams, and the next message's commands follow it."""
    machine = greeted(PLAIN, b"PIPELINING")
    big = mail(body=None)
    machine.send(big)
    machine.take_output()
    assert say(machine, b"250 ok", b"250 ok", b"354 go") == [StreamBody(big)]
    assert machine.take_output() == b""
    machine.body_sent()
    assert answers(say(machine, b"250 ok")) == [(OK, "250 ok")]


def test_a_reply_in_the_middle_of_a_body_ends_the_session():
    """A server that answers before the dot does not read on."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail(body=None))
    say(machine, b"250 ok", b"250 ok", b"354 go")
    events = say(machine, b"552 too much")
    assert answers(events) == [None] and machine.dead


@pytest.mark.parametrize("body", [b"a\nb\r\n", b"a\rb\r\n", b"a\r\n.\n", b"\r"])
def test_a_bare_line_end_is_never_sent(body):
    """THREATS "smuggling": refused for good, and the session ends without a final dot."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail(body=body))
    machine.take_output()
    events = say(machine, b"250 ok", b"250 ok", b"354 go")
    assert answers(events)[0][0] is PERM
    assert machine.take_output() == b""


def test_the_prefix_goes_first():
    """Header lines of local delivery, then the body."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(Mail("", ["x@y"], b".body\r\n", 20, prefix=b"X: y\r\n"))
    say(machine, b"250 ok", b"250 ok", b"354 go")
    assert machine.take_output().endswith(b"DATA\r\nX: y\r\n..body\r\n.\r\n")


# Parameters.


def test_parameters_are_sent_where_offered():
    """SIZE, BODY and the DSN parameters of RFC 3461, or none of them."""
    dsn = [Dsn(Notify.SUCCESS | Notify.FAILURE, "rfc822;q@r", "HDRS", "id+2B"), Dsn(Notify.NEVER)]
    full = mail("x@y", "z@y", eight_bit=True, dsn=dsn)
    machine = greeted(PLAIN, b"PIPELINING", b"SIZE", b"8BITMIME", b"DSN")
    machine.send(full)
    assert machine.take_output() == (
        b"MAIL FROM:<a@b.test> SIZE=18 BODY=8BITMIME RET=HDRS ENVID=id+2B\r\n"
        b"RCPT TO:<x@y> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;q@r\r\n"
        b"RCPT TO:<z@y> NOTIFY=NEVER\r\nDATA\r\n"
    )
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(full)
    assert machine.take_output() == b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y>\r\nRCPT TO:<z@y>\r\nDATA\r\n"


def test_a_message_over_the_servers_size_is_not_sent():
    """RFC 1870 6.1 (5): refused here, the connection stays."""
    machine = greeted(PLAIN, b"SIZE 10")
    assert answers(machine.send(mail()))[0][0] is PERM
    assert machine.take_output() == b"" and machine.idle


def test_addresses_outside_ascii_need_smtputf8():
    """RFC 6531 3.2: the parameter where it is offered, a permanent failure where not."""
    machine = greeted(PLAIN, b"PIPELINING", b"SMTPUTF8")
    machine.send(mail("ä@y"))
    assert machine.take_output().startswith("MAIL FROM:<a@b.test> SMTPUTF8\r\nRCPT TO:<ä@y>".encode())
    assert answers(greeted().send(mail("ä@y")))[0][0] is PERM


@pytest.mark.parametrize("address", ["a@b>\r\nRCPT TO:<c@d", "a b@c", "a>@b", "a\n@b", "a\x00@b"])
def test_an_address_cannot_become_a_command(address):
    """Whatever the spool holds, it stays between its brackets."""
    machine = greeted(PLAIN, b"PIPELINING")
    assert answers(machine.send(mail(address)))[0][0] is PERM
    assert machine.take_output() == b""


# LMTP.

LMTP = ClientOptions("me.test", lmtp=True)


@pytest.mark.parametrize("together", [True, False])
def test_lmtp_answers_each_recipient(together):
    """RFC 2033 4.2: one reply for each accepted RCPT, in one segment or several (QUIRKS 41)."""
    machine = greeted(LMTP, b"PIPELINING")
    machine.send(mail("a", "b", "c"))
    say(machine, b"250 ok", b"250 ok", b"550 no", b"250 ok", b"354 go")
    replies = [b"250 2.0.0 for a", b"452 4.2.2 c is full"]
    events = say(machine, *replies) if together else [e for r in replies for e in say(machine, r)]
    assert answers(events) == [(OK, "250 2.0.0 for a"), (PERM, "550 no"), (TEMP, "452 4.2.2 c is full")]
    assert machine.idle


def test_lmtp_lost_between_replies():
    """Who was answered is done; who was not is temporary."""
    machine = greeted(LMTP, b"PIPELINING")
    machine.send(mail("a", "b"))
    say(machine, b"250 ok", b"250 ok", b"250 ok", b"354 go", b"250 in")
    assert answers(machine.lost("gone")) == [(OK, "250 in"), (TEMP, "gone")]


def test_lmtp_354_without_a_recipient():
    """No reply would follow a dot, so the session ends."""
    machine = greeted(LMTP, b"PIPELINING")
    machine.send(mail("a"))
    machine.take_output()
    events = say(machine, b"250 ok", b"550 no", b"354 go")
    assert answers(events) == [(PERM, "550 no")]
    assert isinstance(events[-1], Refused)
    assert machine.take_output() == b".\r\nQUIT\r\n"


REPLIES = st.sampled_from(
    [
        b"250 ok",
        b"250 ok",
        b"250 ok",
        b"354 go",
        b"354 go",
        b"550 no",
        b"450 later",
        b"452 many",
        b"421 bye",
        b"rubbish",
    ]
)


@given(st.booleans(), st.booleans(), st.lists(st.tuples(REPLIES, st.integers(0, 3), st.booleans()), max_size=40))
def test_every_message_ends_exactly_once(lmtp, pipelining, steps):
    """Whatever the server says and whenever mail is given: no message is lost or answered twice."""
    machine = greeted(ClientOptions("me.test", lmtp=lmtp), *((b"PIPELINING",) if pipelining else ()))
    sent: list[Mail] = []
    ended: list[Mail] = []
    wire = b""

    def note(events: list) -> None:
        for event in events:
            if isinstance(event, Finished):
                ended.append(event.mail)
                assert len(event.answers) == len(event.mail.recipients)
            if isinstance(event, StreamBody):
                machine.body_sent()

    for reply, rcpts, streamed in steps:
        if rcpts and machine.accepts_mail:
            sent.append(mail(*(f"{n}@y" for n in range(rcpts)), body=None if streamed else BODY))
            note(machine.send(sent[-1]))
        note(say(machine, reply))
        wire += machine.take_output()
        assert machine.dead or (len(ended) == len(sent)) == machine.idle
    note(machine.lost("gone"))
    assert sorted(map(id, ended)) == sorted(map(id, sent))
    assert wire.count(b"MAIL FROM:") <= len(sent)


@given(st.integers(1, 12), st.lists(st.booleans(), min_size=12, max_size=12), st.lists(st.integers(1, 9), min_size=1))
def test_a_good_server_gets_every_message(count, early, pieces):
    """However replies are cut into segments and messages are given, all are stored, in order, none waits for ever."""
    machine = greeted(PLAIN, b"PIPELINING")
    waiting = [mail(f"{n}@y", body=b"N: %d\r\n\r\n" % n) for n in range(count)]
    stored: list[bytes] = []
    done: list[Mail] = []
    buffer, in_data, answer_bytes, turn = b"", False, b"", 0

    def serve() -> bytes:
        nonlocal buffer, in_data
        out = b""
        while b"\r\n" in buffer:
            if in_data:
                if b"\r\n.\r\n" not in buffer:
                    break
                body, _, buffer = buffer.partition(b"\r\n.\r\n")
                stored.append(body)
                in_data, out = False, out + b"250 stored\r\n"
                continue
            line, _, buffer = buffer.partition(b"\r\n")
            in_data = line == b"DATA"
            out += b"354 go\r\n" if in_data else b"250 ok\r\n"
        return out

    for turn in range(200):
        if waiting and machine.accepts_mail and (machine.idle or early[turn % len(early)]):
            assert machine.send(waiting.pop(0)) == []
        buffer += machine.take_output()
        answer_bytes += serve()
        size = pieces[turn % len(pieces)] * 5
        piece, answer_bytes = answer_bytes[:size], answer_bytes[size:]
        done += [event.mail for event in machine.receive(piece) if isinstance(event, Finished)]
        if len(done) == count:
            break
    assert len(done) == count
    assert stored == [b"N: %d\r\n" % n for n in range(count)]
