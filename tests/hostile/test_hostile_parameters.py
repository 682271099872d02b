"""Parameters of MAIL and RCPT, and addresses in UTF-8, as an attacker writes them."""

import pytest
from support.hostile import Target

MAIL_BOMBS = {
    "ENVID of plus signs": "ENVID=" + "+" * 1900,
    "ENVID of 1900": "ENVID=" + "x" * 1900,
    "ENVID twice": "ENVID=a ENVID=b",
    "half a hex pair": "ENVID=a+4",
    "small hex digits": "ENVID=a+0d+0a",
    "RET twice": "RET=FULL RET=HDRS",
    "RET of 1900": "RET=" + "F" * 1900,
    "250 options": " ".join(f"A{at}=1" for at in range(250)),
    "equals signs": "=" * 1900,
    "formats": "%s%n%x=%s%n",
    "quotes": 'X="250 2.0.0 Ok',
    "SIZE and its echo": "SIZE=1 size=2",
    "SMTPUTF8 with a value": "SMTPUTF8=" + "x" * 1000,
    "BODY of 1900": "BODY=" + "8" * 1900,
}
RCPT_BOMBS = {
    "ORCPT without a type": "ORCPT=b@example.com",
    "ORCPT of semicolons": "ORCPT=" + ";" * 1000,
    "ORCPT of 600 hex pairs": "ORCPT=rfc822;" + "+41" * 600,
    "ORCPT of 501": "ORCPT=rfc822;" + "x" * 494,
    "NOTIFY of 200 words and a bad one": "NOTIFY=" + "SUCCESS," * 200 + "x",
    "NOTIFY of commas": "NOTIFY=" + "," * 1000,
    "NEVER and all": "NOTIFY=NEVER,SUCCESS,FAILURE,DELAY",
    "NOTIFY twice": "NOTIFY=NEVER NOTIFY=SUCCESS",
    "250 options": " ".join(f"A{at}=1" for at in range(250)),
    "options of MAIL": "RET=FULL ENVID=x",
    "formats": "%s%n%x=%s%n",
}


@pytest.mark.parametrize("bomb", MAIL_BOMBS)
def test_bombs_at_mail(target: Target, bomb: str) -> None:
    """One refusal, and no transaction."""
    with target.wire() as wire:
        assert wire.say(f"MAIL FROM:<a@client.test> {MAIL_BOMBS[bomb]}")[:1] == b"5"
        assert wire.say("RCPT TO:<b@example.com>").startswith(b"503 ")
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")


@pytest.mark.parametrize("bomb", RCPT_BOMBS)
def test_bombs_at_rcpt(target: Target, bomb: str) -> None:
    """One refusal, and no recipient."""
    with target.wire() as wire:
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<b@example.com> {RCPT_BOMBS[bomb]}")[:1] == b"5"
        assert wire.say("DATA").startswith(b"503 5.5.4 ")


@pytest.mark.parametrize(
    "coded", ["+0D+0AInjected:+20x", "+0AInjected:+20x", "+00+1B[2J", "+FF+FE", "+2B+3D", "+0D+0A.+0D+0A"]
)
def test_line_ends_in_xtext_forge_no_header(target: Target, coded: str) -> None:
    """ENVID and ORCPT are decoded for the notification, and end no line of it."""
    with target.wire() as wire:
        assert wire.say(f"MAIL FROM:<a@example.com> ENVID=x{coded} RET=HDRS").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<b@example.com> NOTIFY=SUCCESS ORCPT=rfc822;x{coded}").startswith(b"250 ")
        assert wire.say("DATA").startswith(b"354 ")
        assert wire.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        wire.say("QUIT")
    (notice,) = [data for data in target.taken(2) if b"multipart/report" in data]
    lines = notice.split(b"\r\n")
    assert any(line.startswith(b"Original-Envelope-Id: x") for line in lines)
    assert not any(line.startswith(b"Injected") for line in lines)
    assert all(line.isascii() and all(byte >= 32 or byte == 9 for byte in line) for line in lines)


UTF8_REFUSED = {
    "no UTF-8": b"\xff\xfe",
    "Latin-1": b"j\xfcrgen",
    "overlong slash": b"a\xc0\xaf",
    "overlong NUL": b"a\xc0\x80",
    "overlong at sign": b"a\xc1\x80b",
    "three bytes for a dot": b"a\xe0\x80\xae",
    "a surrogate": b"a\xed\xa0\x80",
    "a pair of surrogates": b"a\xed\xa0\xbd\xed\xb8\x80",
    "beyond Unicode": b"a\xf4\x90\x80\x80",
    "five bytes": b"a\xf8\x88\x80\x80\x80",
    "cut short": b"a\xc3",
    "right to left override": "a\u202eb".encode(),
    "zero width space": "a\u200bb".encode(),
    "byte order mark": "\ufeffa".encode(),
    "line separator": "a\u2028b".encode(),
    "next line": "a\u0085b".encode(),
    "C1 escape": "a\u009bb".encode(),
    "a tag": "a\U000e0041".encode(),
    "no-break space": "a\u00a0b".encode(),
}


@pytest.mark.parametrize("where", ["local part", "domain"])
@pytest.mark.parametrize("verb", [b"MAIL FROM:", b"RCPT TO:"])
@pytest.mark.parametrize("what", UTF8_REFUSED)
def test_bytes_that_are_no_address(target: Target, what: str, verb: bytes, where: str) -> None:
    """Refused where they come, and none of them reaches a reply or the log."""
    text = UTF8_REFUSED[what]
    address = text + b"@example.com" if where == "local part" else b"a@" + text + b".example.com"
    with target.wire() as wire:
        if verb.startswith(b"RCPT"):
            assert wire.say("MAIL FROM:<a@client.test> SMTPUTF8").startswith(b"250 ")
        answer = wire.say(verb + b"<" + address + b">" + (b" SMTPUTF8" if verb.startswith(b"MAIL") else b""))
        assert answer[:1] == b"5", answer
        assert wire.say("NOOP") == b"250 2.0.0 Ok"


@pytest.mark.parametrize(
    "domain",
    [
        "\u0435xample.com",
        "ex\u0430mple.com",
        "example\u2024com",
        "example.c\u043em",
        "exampl\u0117.com",
        "example.com\u0307",
    ],
)
def test_domains_that_look_like_ours(target: Target, domain: str) -> None:
    """A homoglyph of our domain is another domain, for which we do not relay."""
    with target.wire() as wire:
        assert wire.say("MAIL FROM:<a@client.test> SMTPUTF8").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<b@{domain}>")[:1] == b"5"


@pytest.mark.parametrize("forms", [("j\u00fcrgen", "ju\u0308rgen"), ("\u00c5", "\u212b"), ("\ufb01", "fi")])
def test_normal_forms_of_a_local_part(target: Target, forms: tuple[str, str]) -> None:
    """Each is taken, as one recipient, and goes on as it came or not at all; neither splits into two."""
    with target.wire() as wire:
        assert wire.say("MAIL FROM:<> SMTPUTF8").startswith(b"250 ")
        for form in forms:
            assert wire.say(f"RCPT TO:<{form}@example.com>")[:1] in b"25"
        assert wire.say("RSET").startswith(b"250 ")


@pytest.mark.parametrize("label", ["xn--", "xn---", "xn--a", "xn--zzzzzzzzzzzz", "xn--" + "9" * 59, "XN--80AK6AA92E"])
def test_labels_that_are_no_a_labels(target: Target, label: str) -> None:
    """They cost nothing but an answer."""
    with target.wire() as wire:
        assert wire.say(f"MAIL FROM:<a@{label}.test>")[:1] in b"25"
        assert wire.say("RSET").startswith(b"250 ")
        assert wire.say("MAIL FROM:<a@client.test> SMTPUTF8").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<b@{label}.test>")[:1] == b"5"
