"""Messages in 7 bits: what is decoded is the same, what must not change does not, and the rest is refused."""

import email
import itertools
from email import policy
from email.message import Message

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpd_ps.pure.seven_bit import Scan, Unconvertible, Writer, seven_bit

PLAIN = b"Subject: x\r\nFrom: a@b.test\r\n"


def leaves(message: Message) -> list[tuple[str, bytes]]:
    """Type and decoded content of every part that has no parts."""
    return [
        (part.get_content_type(), part.get_payload(decode=True) or b"")
        for part in message.walk()
        if not part.is_multipart()
    ]


def in_pieces(message: bytes, cuts: list[int]) -> bytes:
    """The same in pieces cut anywhere."""
    places = sorted({0, len(message), *(cut % (len(message) + 1) for cut in cuts)})
    pieces = [message[a:b] for a, b in itertools.pairwise(places)]
    scan = Scan()
    for piece in pieces:
        assert scan.feed(piece) == b""
    scan.finish()
    writer = Writer(scan.leaves)
    return b"".join(map(writer.feed, pieces)) + writer.finish()


def line_bytes() -> st.SearchStrategy[bytes]:
    byte = st.one_of(st.binary(min_size=1, max_size=1), st.sampled_from([b" ", b"\t", b"=", b".", b"-", b"\xe4"]))
    text = st.lists(byte, max_size=200).map(b"".join).filter(lambda b: b"\r" not in b and b"\n" not in b)
    # Lines that are nearly boundaries, also where a line of quoted-printable is broken.
    near = st.integers(0, 80).map(lambda n: b"\xe4" + b"x" * n + b"--one" + b"y" * 80)
    return st.one_of(text, near, st.just(b"--onemore"), st.just(b"."))


BODIES = st.lists(line_bytes(), max_size=6).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
TYPES = st.sampled_from([
    b"", b"Content-Type: text/plain; charset=utf-8\r\n",
    b"Content-type:\r\n\tTEXT/html;\r\n charset=\"iso-8859-1\"\r\n",
    b"Content-Type: application/octet-stream; name=\"a;boundary=b\"\r\n", b"Content-Type: image/png\r\n",
])  # fmt: skip
LABELS = st.sampled_from([
    b"", b"Content-Transfer-Encoding: 8bit\r\n", b"content-transfer-encoding:\r\n 8BIT (yes)\r\n",
    b"Content-Transfer-Encoding: 7bit\r\n", b"Content-Transfer-Encoding: binary\r\n",
])  # fmt: skip
PARTS = st.builds(lambda kind, label, body: kind + label + b"\r\n" + body, TYPES, LABELS, BODIES)


def multipart(boundary: bytes, parts: list[bytes]) -> bytes:
    head = (
        b'Content-Type: multipart/mixed;\r\n\tboundary="' + boundary + b'"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
    )
    return head + b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"


MESSAGES = st.one_of(
    PARTS,
    st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: multipart(b"one", parts)),
    st.tuples(PARTS, st.lists(PARTS, min_size=1, max_size=3), PARTS).map(
        lambda t: multipart(b"one two", [t[0], multipart(b"one", t[1]), t[2]])
    ),
)


@given(MESSAGES, st.lists(st.integers(0, 5000), max_size=5))
@example(b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + b"\xe4" * 24 + b"x--one" + b"y" * 60 + b" \r\n", [])
def test_decoded_it_is_the_same(body, cuts):
    """Every leaf has its type and its bytes, in ASCII lines of at most 998 octets, whatever pieces it comes in."""
    message = PLAIN + b"MIME-Version: 1.0\r\n" + body
    new = seven_bit(message)
    assert new.isascii()
    assert in_pieces(message, cuts) == new
    before = email.message_from_bytes(message, policy=policy.compat32)
    after = email.message_from_bytes(new, policy=policy.compat32)
    assert leaves(after) == leaves(before)
    assert b"8bit" not in b"".join(
        value.lower().encode() for part in after.walk() for value in part.get_all("content-transfer-encoding", [])
    )
    assert max(map(len, new.split(b"\r\n"))) <= 998


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=4))
def test_any_bytes(data, cuts):
    """Whatever comes: ASCII, or a refusal in one line; pieces make no difference."""
    data = data.replace(b"~", b"\r\n").replace(b"\xfe", b"--one\r\n")
    data = PLAIN + b"Content-Type: multipart/mixed; boundary=one\r\n" + data

    def outcome(run):
        try:
            return run()
        except Unconvertible as error:
            return str(error)

    whole = outcome(lambda: seven_bit(data))
    assert outcome(lambda: in_pieces(data, cuts)) == whole
    if isinstance(whole, bytes):
        assert whole.isascii()
    else:
        assert whole.startswith("554 5.6.") and whole.isprintable()


def test_text_and_binary():
    """Text becomes quoted-printable, other types base64; labels say so; ASCII parts stay as they are."""
    new = seven_bit(
        PLAIN
        + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa4 = a\r\n"
        b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xff\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\na = b \r\n"
        b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n"
    )
    assert new == (
        PLAIN
        + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
        b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        b"=C3=A4 =3D a\r\n"
        b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n/w0K\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\na = b \r\n"
        b"--b\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n"
    )


def test_a_message_without_mime():
    """It gets a version, a charset that says that nobody knows (RFC 1428), and an encoding."""
    new = seven_bit(PLAIN + b"\r\ngr\xfc\xdfe\r\n")
    assert new == PLAIN + (
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\ngr=FC=DFe\r\n"
    )


def test_ascii_in_what_must_not_change_passes():
    """Signed parts and messages in messages stay byte for byte."""
    signed = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
        b"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\nx =\r\n--s--\r\n"
        b"--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\nContent-Transfer-Encoding: 8bit\r\n\r\nb\r\n"
    )
    end = b"--o\r\n\r\n\xe4\r\n--o--\r\n"
    assert seven_bit(PLAIN + signed + end) == PLAIN + signed + (
        b"--o\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=E4\r\n--o--\r\n"
    )


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"Subject: \xc3\xa4\r\n\r\nx\r\n", "554 5.6.9 "),
        (b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n\xe4\r\n", "554 5.6.3 "),
        (b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n", "554 5.6.3 "),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\xe4\r\n--b\r\n\r\nx\r\n--b--\r\n", "554 5.6.3 "),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n\xe4\r\n", "554 5.6.3 "),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: \xe4\r\n\r\n--b--\r\n", "554 5.6.3 "),
        (b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nX: y\r\n\r\n\xe4\r\n--b--\r\n", "554 5.6.3 "),
        (b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n", "554 5.6.3 "),
        (b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n\xe4\r\n", "554 5.6.3 "),
        (b"Content-Transfer-Encoding: base64\r\n\r\n\xe4\r\n", "554 5.6.3 "),
        (b"Content-Transfer-Encoding: x-uuencode\r\n\r\n\xe4\r\n", "554 5.6.3 "),
        (b"X: " + b"y" * 200_000 + b"\r\n\r\n\xe4\r\n", "554 5.6.3 "),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 20_000 + b"\r\n\xe4\r\n", "554 5.6.3 "),
    ],
)
def test_what_has_no_such_form(message, code):
    """Bytes above 127 where nothing may be encoded, and structures beyond the bounds."""
    with pytest.raises(Unconvertible) as error:
        seven_bit(PLAIN + message)
    assert str(error.value).startswith(code)
