"""Bytes above 127 and names outside ASCII, to hosts that do and do not take them; options told to each its own."""

import os
from pathlib import Path

import msgspec
import pytest
from delivery_bench import Bench, host, relay

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Dsn, Notify, Status

HEAD = b"From: a@sender.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
EIGHT = HEAD + b"Content-Transfer-Encoding: 8bit\r\n\r\ngr\xc3\xbc\xc3\x9fe = x\r\n.dot\r\n"
SEVEN = HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\ngr=C3=BC=C3=9Fe =3D x\r\n.dot\r\n"
SIGNED = b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n"


def eight_bit(job):
    return msgspec.structs.replace(job, eight_bit=True)


def routed(bench: Bench, *jobs) -> dict:
    bench.delivery.deliver(m.Deliver(jobs))
    bench.until(lambda: bool(bench.queries))
    bench.route(*bench.hosts)
    bench.until(lambda: len(bench.results) == sum(len(job.recipients) for job in jobs))
    return {result.evpid >> 32: result for result in bench.results}


@pytest.fixture
def seven_bit_sink(sinks):
    return sinks(offers=(b"PIPELINING", b"SIZE 1000000", b"DSN"))


def test_a_host_of_8_bits_gets_them(sinks):
    """BODY=8BITMIME and the message as it is."""
    sink = sinks()
    bench = relay(sink)
    result = routed(bench, eight_bit(bench.job("b@x.test", body=EIGHT)))[1]
    assert result.status is Status.OK
    assert sink.messages[0][2] == EIGHT
    assert any(b"BODY=8BITMIME" in command for command in sink.commands)


def test_a_host_of_7_bits_gets_them_encoded(seven_bit_sink):
    """A small body is converted, others on the same connection are as they were; SIZE is the new one."""
    bench = relay(seven_bit_sink)
    plain = bench.job("b@x.test", number=2)
    results = routed(bench, eight_bit(bench.job("b@x.test", body=EIGHT)), plain)
    assert {each.status for each in results.values()} == {Status.OK}
    assert sorted(body for _, _, body in seven_bit_sink.messages) == sorted([SEVEN, plain.body])
    assert not any(b"BODY=" in command for command in seven_bit_sink.commands)
    assert any(b"SIZE=%d" % len(SEVEN) in command for command in seven_bit_sink.commands)


def test_a_large_body_is_encoded_as_it_is_sent(seven_bit_sink, tmp_path: Path):
    """From a file, a piece at a time."""
    lines = 40_000
    stored = EIGHT + b"gr\xc3\xbc\xc3\x9fe\r\n" * lines
    path = tmp_path / "body"
    path.write_bytes(stored)
    bench = relay(seven_bit_sink)
    job = msgspec.structs.replace(eight_bit(bench.job("b@x.test")), size_bytes=len(stored), body=b"")
    bench.delivery.deliver_file(m.DeliverFile(job), os.open(path, os.O_RDONLY))
    bench.until(lambda: bool(bench.queries))
    bench.route(*bench.hosts)
    bench.until(lambda: bool(bench.results), 30)
    assert bench.results[0].status is Status.OK
    assert seven_bit_sink.messages[0][2] == SEVEN + b"gr=C3=BC=C3=9Fe\r\n" * lines


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize(("body", "code"), [(SIGNED, "554 5.6.3 "), (b"Subject: \xe4\r\n\r\nx\r\n", "554 5.6.9 ")])
def test_what_cannot_be_encoded_bounces(seven_bit_sink, tmp_path: Path, body: bytes, code: str, in_file: bool):
    """The host is not even told of it, and the connection goes on with other mail."""
    bench = relay(seven_bit_sink)
    job = eight_bit(bench.job("b@x.test", "c@x.test", body=body))
    bench.delivery.deliver(m.Deliver((bench.job("b@x.test", number=2),)))
    if in_file:
        (tmp_path / "body").write_bytes(body)
        job = msgspec.structs.replace(job, body=b"")
        bench.delivery.deliver_file(m.DeliverFile(job), os.open(tmp_path / "body", os.O_RDONLY))
    else:
        bench.delivery.deliver(m.Deliver((job,)))
    bench.until(lambda: bool(bench.queries))
    bench.route(*bench.hosts)
    bench.until(lambda: len(bench.results) == 3)
    refused = [each for each in bench.results if each.evpid >> 32 == 1]
    assert [each.status for each in refused] == [Status.PERMFAIL] * 2
    assert all(each.text.startswith(code) for each in refused)
    assert len(seven_bit_sink.messages) == 1
    assert sum(command.startswith(b"MAIL") for command in seven_bit_sink.commands) == 1


def test_addresses_outside_ascii_bounce_where_they_cannot_be_sent(seven_bit_sink):
    """RFC 6531 3.6: 5.6.7, and nothing is sent."""
    bench = relay(seven_bit_sink)
    result = routed(bench, bench.job("j\u00f6@x.test"))[1]
    assert result.status is Status.PERMFAIL and " 5.6.7 " in result.text
    assert seven_bit_sink.messages == []


def test_options_of_notification_stay_with_their_recipient(seven_bit_sink):
    """NOTIFY and ORCPT of one are not said for another, nor those of one message for the next."""
    bench = relay(seven_bit_sink)
    job = bench.job("a@x.test", "b@x.test", "c@x.test")
    first, second, third = job.recipients
    told = (
        msgspec.structs.replace(
            first, dsn=Dsn(notify=Notify.SUCCESS, orcpt="rfc822;one@x.test", ret="HDRS", envid="e1")
        ),
        msgspec.structs.replace(second, dsn=Dsn(notify=Notify.NEVER, ret="HDRS", envid="e1")),
        msgspec.structs.replace(third, dsn=Dsn(ret="HDRS", envid="e1")),
    )
    results = routed(bench, msgspec.structs.replace(job, recipients=told), bench.job("d@x.test", number=2))
    assert {each.status for each in results.values()} == {Status.OK}
    said = {word.split(b">")[0].split(b"<")[1]: word.partition(b">")[2].strip()
            for word in seven_bit_sink.commands if word.startswith(b"RCPT")}  # fmt: skip
    assert said == {
        b"a@x.test": b"NOTIFY=SUCCESS ORCPT=rfc822;one@x.test", b"b@x.test": b"NOTIFY=NEVER", b"c@x.test": b"",
        b"d@x.test": b"",
    }  # fmt: skip
    mails = [command for command in seven_bit_sink.commands if command.startswith(b"MAIL")]
    assert [b"ENVID=e1" in command and b"RET=HDRS" in command for command in sorted(mails, key=len)] == [False, True]


def test_a_host_without_ehlo_is_greeted_with_helo(sinks):
    """It takes 7 bits, and no parameters."""
    sink = sinks(knows_ehlo=False)
    bench = relay(sink)
    result = routed(bench, eight_bit(bench.job("b@x.test", body=EIGHT, dsn=Dsn(notify=Notify.NEVER))))[1]
    assert result.status is Status.OK
    assert sink.messages[0][2] == SEVEN
    assert sink.commands[:4] == [
        b"EHLO client.test", b"HELO client.test", b"MAIL FROM:<a@sender.test>", b"RCPT TO:<b@x.test>",
    ]  # fmt: skip


def test_credentials_that_nobody_asks_for_are_an_error(sinks):
    """A host that wants none is not used without them: the route fails at once, and the mail waits."""
    sink = sinks()
    bench = relay(sink)
    bench.hosts = [host(sink, user="u", password="p")]
    result = routed(bench, bench.job("b@x.test"))[1]
    assert result.status is Status.TEMPFAIL and "AUTH" in result.text
    assert not any(command.startswith(b"MAIL") for command in sink.commands)
