"""The client machine that tells filters what happens."""

from base64 import b64encode

from smtpd_ps.pure.reporting_client import ReportingClient
from smtpd_ps.pure.smtp_client_events import ClientOptions, Mail

BODY = b"Subject: x\r\n\r\nMAIL FROM:<no@x>\r\n"


def machine(told: list[str], options: ClientOptions = ClientOptions("me.test")) -> ReportingClient:  # noqa: B008
    return ReportingClient(
        options, lambda event, words: told.append("|".join((event, *words))), lambda _mail, index: ("M", f"E{index}")
    )


def feed(client: ReportingClient, *lines: bytes) -> None:
    client.receive(b"".join(line + b"\r\n" for line in lines))


def since(told: list[str], start: int) -> list[str]:
    """What was told of transactions."""
    return [line for line in told[start:] if line.startswith("tx-")]


def test_a_session_with_a_mail() -> None:
    """The greeting, our name, each line of both sides, and the transaction; nothing of the body."""
    told: list[str] = []
    client = machine(told)
    feed(client, b"220 mx.test ESMTP", b"250 mx.test")
    client.send(Mail("a@x", ["b@y", "c@y"], BODY, len(BODY)))
    feed(client, b"250 ok", b"550 no", b"250 ok", b"354 go", b"250 taken")
    client.quit()
    assert told == [
        "protocol-server|220 mx.test ESMTP", "link-greeting|mx.test",
        "protocol-client|EHLO me.test", "link-identify|EHLO|me.test", "protocol-server|250 mx.test",
        "protocol-client|MAIL FROM:<a@x>",
        "protocol-server|250 ok", "tx-begin|M", "tx-mail|M|ok|a@x", "protocol-client|RCPT TO:<b@y>",
        "protocol-server|550 no", "tx-envelope|M|E0", "tx-rcpt|M|permfail|b@y", "protocol-client|RCPT TO:<c@y>",
        "protocol-server|250 ok", "tx-envelope|M|E1", "tx-rcpt|M|ok|c@y", "protocol-client|DATA",
        "protocol-server|354 go", "tx-data|M|ok", "protocol-client|.",
        "protocol-server|250 taken", f"tx-commit|M|{len(BODY)}", "tx-reset|M", "protocol-client|QUIT",
    ]  # fmt: skip
    assert client.take_output().count(b"MAIL FROM:<no@x>") == 1


def test_transactions_that_fail() -> None:
    """Each that has begun ends once, rolled back; one whose MAIL is refused never began."""
    told: list[str] = []
    client = machine(told)
    feed(client, b"220 --?-- ESMTP", b"250-mx", b"250 PIPELINING")
    assert "link-greeting|" in told
    mail = Mail("a@x", ["b@y"], BODY, len(BODY))
    at = len(told)
    client.send(mail)
    feed(client, b"451 no", b"503 no", b"503 no")
    assert since(told, at) == []
    client.send(mail)
    feed(client, b"250 ok", b"250 ok", b"451 no", b"503 no")
    ended = ["tx-rollback|M", "tx-reset|M"]
    begun = ["tx-begin|M", "tx-mail|M|ok|a@x", "tx-envelope|M|E0"]
    assert since(told, at) == [*begun, "tx-rcpt|M|tempfail|b@y", *ended]
    at = len(told)
    client.send(mail)
    assert "protocol-client|RSET" in told[at:]
    feed(client, b"250 ok", b"250 ok", b"250 ok", b"552 no")
    assert since(told, at) == [*begun, "tx-rcpt|M|ok|b@y", "tx-data|M|permfail", *ended]
    at = len(told)
    client.send(mail)
    feed(client, b"250 ok", b"250 ok", b"250 ok", b"354 go", b"554 no")
    assert since(told, at)[-3:] == ["tx-data|M|ok", *ended]
    at = len(told)
    client.send(mail)
    feed(client, b"250 ok", b"250 ok")
    client.lost("gone")
    client.lost("gone")
    assert since(told, at) == [*begun, "tx-rcpt|M|ok|b@y", *ended]


def test_passwords_are_not_told() -> None:
    """Neither of AUTH PLAIN nor of AUTH LOGIN; whether it was right is."""
    for way, answers in ((b"PLAIN", ()), (b"LOGIN", (b"334 x", b"334 y"))):
        for code, word in ((b"235 ok", "pass"), (b"535 no", "fail")):
            told: list[str] = []
            client = machine(told, ClientOptions("me.test", tls="implicit", user="bob", password="secret"))
            feed(client, b"220 mx", b"250-mx", b"250 AUTH " + way, *answers, code)
            text = "\n".join(told)
            for hidden in (b"secret", b"bob", b"\0bob\0secret"):
                assert b64encode(hidden).decode() not in text
            assert "********" in text
            assert f"link-auth|{word}|bob" in told
            assert ("protocol-client|QUIT" in told) == (word == "fail")
