"""Relay options in the real, confined daemon: where mail goes, from which address, under whose certificate."""

import contextlib
import json
import re
import ssl
import time
from collections.abc import Iterator
from email import message_from_bytes

import pytest
from support.certs import make_certificate, make_key, write_acme
from support.daemon import Daemon, free_port, running, wait_until
from support.dns_zone import zone
from support.sink import Behaviour, Sink, sinking

pytestmark = pytest.mark.timeout(150)

LISTEN = "listen on 127.0.0.1 port {port} hostname mx.test\n"
MESSAGE = "From: a@client.test\r\nSubject: relay\r\n\r\nbody\r\n"


def send(daemon: Daemon, *recipients: str, sender: str = "a@client.test") -> None:
    """Hand one message in."""
    with daemon.smtp() as client:
        client.sendmail(sender, recipients, MESSAGE)


def test_a_domain_map_and_backup_hosts() -> None:
    """Each domain goes to the host of its entry, by LMTP too; a host that is down has its backup; no entry waits."""
    with sinking() as first, sinking(lmtp=True) as second, sinking() as third:
        config = LISTEN + (
            f'table map {{ "a.test" = "smtp://127.0.0.1:{first.port}", "b.test" = "lmtp://127.0.0.1:{second.port}" }}\n'
            f"action map relay domain <map>\n"
            f'action failover relay host "smtp://127.0.0.1:{free_port()}" '
            f'backup host {{ "smtp://127.0.0.1:{free_port()}", "smtp://127.0.0.1:{third.port}" }}\n'
            "match from any for domain failover.test action failover\n"
            "match from any for any action map\n"
        )
        with running(config) as daemon:
            send(daemon, "x@A.test", "y@b.test", "z@failover.test")
            daemon.wait_empty()
            send(daemon, "x@c.test")
            wait_until("the mail waits", lambda: "Cannot retrieve smarthost" in daemon.ctl("show", "queue"))
        assert [mail.recipients for mail in first.mails] == [["x@A.test"]]
        assert [mail.recipients for mail in second.mails] == [["y@b.test"]]
        assert [mail.recipients for mail in third.mails] == [["z@failover.test"]]


def test_source_and_its_name() -> None:
    """The confined delivery binds the source, says the name of the table, and the log names both."""
    with sinking() as sink:
        config = LISTEN + (
            f'action out relay host "smtp://127.0.0.1:{sink.port}" src {{ 127.0.0.2, "127.0.0.3" }} '
            'helo-src { "127.0.0.2" = two.test }\n'
            f'action lost relay host "smtp://127.0.0.1:{sink.port}" helo-src {{ "192.0.2.1" = x.test }}\n'
            "match from any for domain lost.test action lost\n"
            "match from any for any action out\n"
        )
        with running(config) as daemon:
            send(daemon, "x@d.test")
            daemon.wait_empty()
            daemon.wait_logged('source="127.0.0.2"')
            assert sink.greetings == ["two.test"]
            send(daemon, "x@lost.test")
            wait_until("the mail waits", lambda: "helo-src has no name" in daemon.ctl("show", "queue"))


@contextlib.contextmanager
def tls_sink(chain: str, key: str, version: ssl.TLSVersion) -> Iterator[Sink]:
    """A sink under implicit TLS of one version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.minimum_version = context.maximum_version = version
    with sinking() as sink:
        sink.server.socket = context.wrap_socket(sink.server.socket, server_side=True, do_handshake_on_connect=False)
        yield sink


def test_authority_and_protocols(tmp_path) -> None:
    """`ca` is whom the relay trusts; the protocols of one action hold for it alone."""
    key = make_key("ecdsa")
    chain, private = write_acme(tmp_path / "acme", key, "localhost")
    (tmp_path / "other.pem").write_bytes(make_certificate(make_key("ecdsa"), "localhost"))
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes("# Autorité\n".encode("latin-1") + chain.read_bytes())
    with tls_sink(str(chain), str(private), ssl.TLSVersion.TLSv1_3) as sink:
        host = f'host "smtps://localhost:{sink.port}"'
        config = LISTEN + (
            f'ca ours cert "{bundle}"\nca other cert "{tmp_path}/other.pem"\n'
            f"action good relay {host} ca ours protocols TLSv1.3\n"
            f"action wrong relay {host} ca other\n"
            f'action old relay {host} ca ours protocols "TLSv1.2" ciphers "ECDHE+AESGCM"\n'
            "match from any for domain wrong.test action wrong\n"
            "match from any for domain old.test action old\n"
            "match from any for any action good\n"
        )
        with running(config) as daemon:
            send(daemon, "x@wrong.test")
            wait_until("not trusted", lambda: "certificate" in daemon.ctl("show", "queue").lower())
            send(daemon, "x@d.test")
            wait_until("delivered", lambda: sink.mails)
            send(daemon, "x@old.test")
            wait_until("version refused", lambda: "version" in daemon.ctl("show", "queue").lower())
        assert [mail.recipients for mail in sink.mails] == [["x@d.test"]]


def test_a_backup_mx() -> None:
    """Mail goes to exchangers before this one only; when it is the first itself, the mail waits."""
    with (
        zone(
            MX_d_test=["10 best.test.", "20 mx.test.", "30 worse.test."], A_best_test=["127.0.0.71"],
            A_worse_test=["127.0.0.72"], MX_own_test=["10 mx.test.", "20 best.test."],
        ) as names,
        sinking(address=("127.0.0.72", 25)) as worse,
        sinking(address=("127.0.0.71", 25)) as best,
    ):  # fmt: skip
        config = LISTEN + "action b relay backup mx mx.test\nmatch from any for any action b\n"
        with running(config, resolver=f"127.0.0.1:{names.port}") as daemon:
            send(daemon, "x@d.test")
            daemon.wait_empty()
            send(daemon, "x@own.test")
            wait_until("the mail waits", lambda: "No MX found for destination" in daemon.ctl("show", "queue"))
        assert (len(best.mails), len(worse.mails)) == (1, 0)


SRS = """
srs key "the new secret"
srs key backup "the old secret"
table forwards { "bob@ours.test" = "bob@far.test" }
action forward maildir virtual <forwards>
action out relay host "smtp://127.0.0.1:SINK" srs
match from any for domain ours.test action forward
match for any action out
"""


def test_srs_both_ways() -> None:
    """Forwarded mail shows an address of ours, mail that is only relayed does not; a bounce to it finds the sender."""
    with sinking() as sink, running(LISTEN + SRS.replace("SINK", str(sink.port))) as daemon:
        send(daemon, "bob@ours.test")
        daemon.wait_empty()
        send(daemon, "x@direct.test")
        send(daemon, "bob@ours.test", sender="")
        daemon.wait_empty()
        shown = {tuple(mail.recipients): mail.sender for mail in sink.mails}
        assert shown["x@direct.test",] == "a@client.test"
        first = sink.mails[0].sender
        assert first.startswith("SRS0=") and first.endswith("=client.test=a@ours.test")
        assert [mail.sender for mail in sink.mails].count("") == 1
        sink.mails.clear()
        send(daemon, first, sender="")
        daemon.wait_empty()
        assert [(mail.sender, mail.recipients) for mail in sink.mails] == [("", ["a@client.test"])]
        with daemon.smtp() as client:
            client.ehlo()
            assert client.mail("eve@client.test")[0] == 250
            assert client.rcpt(first)[0] >= 500  # only bounces are led back
            client.rset()
            client.mail("")
            assert client.rcpt(first.replace("client.test=a@", "client.test=b@"))[0] >= 500
        assert "is the SRS address of a@client.test" in daemon.ctl(
            "explain", "--from", "local", "--sender", "", "--rcpt", first
        )
        assert "secret" not in daemon.log


def test_what_the_operator_sees_of_the_network() -> None:
    """Routes, relays, hosts and last replies in OpenSMTPD's formats; resume route; pause mta from A for D."""
    port = free_port()
    config = LISTEN + (
        f'action out relay host "smtp+notls://127.0.0.1:{port}"\nmatch from any for any action out\n'
        "mta max-deferred 5\n"
    )
    with running(config) as daemon:
        send(daemon, "x@d.test")
        wait_until("the route is disabled", lambda: " ND" in daemon.ctl("show", "routes"))
        route = daemon.ctl("show", "routes")
        assert re.fullmatch(
            r"1\. \[\] <-> 127\.0\.0\.1 \(127\.0\.0\.1\) NDQ- nconn=0 nerror=1 penalty=1 timeout=\d+s\n", route
        ), route
        assert re.fullmatch(
            r"127\.0\.0\.1 127\.0\.0\.1 refcount=1 nconn=0 lastconn=\d+s\n", daemon.ctl("show", "hosts")
        )
        assert daemon.ctl("show", "relays").startswith(
            f"[relay:127.0.0.1,port={port},smtp+notls,mx] refcount=0 ntask=0 "
        )
        domain, told, text = daemon.ctl("show", "hoststats").rstrip("\n").split("|")
        assert (domain, text) == ("d.test", "Connection refused (127.0.0.1)") and abs(int(told) - time.time()) < 600
        assert json.loads(daemon.ctl("--json", "show", "routes"))["penalty"] == 1
        assert daemon.ctl("resume", "route", "1") == "1 route resumed\n"
        assert " N--- " in daemon.ctl("show", "routes")
        with sinking(address=("127.0.0.1", port)) as sink:
            daemon.ctl("pause", "mta", "from", "127.0.0.1", "for", "127.0.0.1")
            assert daemon.ctl("show", "mta", "paused") == "127.0.0.1 -> 127.0.0.1\n"
            send(daemon, "y@d.test")
            wait_until("blocked", lambda: "All routes to destination blocked" in daemon.ctl("show", "queue"))
            daemon.ctl("reload")
            assert daemon.ctl("show", "mta", "paused") == "127.0.0.1 -> 127.0.0.1\n"
            daemon.ctl("resume", "mta", "from", "127.0.0.1", "for", "127.0.0.1")
            assert daemon.ctl("show", "mta", "paused") == ""
            daemon.schedule_until("the queue is empty", lambda: daemon.queued() == 0)
            assert len(sink.mails) == 2


def test_mail_that_waits_goes_as_soon_as_its_domain_takes_some() -> None:
    """What failed because no host could be reached is due when the first delivery to its domain succeeds."""
    port = free_port()
    config = LISTEN + f'action out relay host "smtp+notls://127.0.0.1:{port}"\nmatch from any for any action out\n'
    with running(config) as daemon:
        for _ in range(3):
            send(daemon, "x@d.test")
        wait_until("all have been tried", lambda: daemon.ctl("show", "queue").count("Connection refused") == 3)
        with sinking(address=("127.0.0.1", port)) as sink:
            daemon.ctl("resume", "route", "all")
            send(daemon, "y@d.test")
            daemon.wait_empty()
            assert len(sink.mails) == 4


def test_eight_bits_to_a_host_of_seven() -> None:
    """A small message and a large one arrive encoded and decode to what was sent; a signed one bounces with 5.6.3."""
    words = "gr\u00fc\u00dfe aus K\u00f6ln\r\n".encode()
    plain = b"From: a@client.test\r\nSubject: %s\r\n\r\n"
    signed = b"From: a@client.test\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n"
    with sinking(behaviour=Behaviour(extensions=("PIPELINING", "SIZE 36700160"))) as sink:
        config = LISTEN + f'action out relay host "smtp://127.0.0.1:{sink.port}"\nmatch from any for any action out\n'
        with running(config) as daemon, daemon.smtp() as client:
            for body in (plain % b"small" + words, plain % b"large" + words * 10_000, signed):
                client.sendmail("a@client.test", ["b@example.com"], body, ["BODY=8BITMIME"])
            daemon.wait_empty()
            mails = {str(mail["Subject"]): mail for mail in (message_from_bytes(each.data) for each in sink.mails)}
            assert all(each.data.isascii() for each in sink.mails)
            assert mails["small"].get_payload(decode=True) == words
            assert mails["large"].get_payload(decode=True) == words * 10_000
            assert mails["small"]["Content-Transfer-Encoding"] == "quoted-printable"
            daemon.wait_logged('stat="554 5.6.3 ')
            (bounce,) = [each for each in sink.mails if not each.sender]
            assert b"Status: 5.6.3" in bounce.data
            assert len(sink.mails) == 3


def test_a_domain_with_a_rate() -> None:
    """Its mail waits in delivery, that of others goes on, and neither queue nor delivery has anything to do."""
    with (
        sinking(address=("127.0.0.78", 25)) as sink,
        zone(A_slow_test=["127.0.0.78"], A_fast_test=["127.0.0.78"]) as server,
    ):
        config = "mta limit for domain slow.test max-mails-per-minute 1\n" + LISTEN
        config += "action out relay\nmatch from any for any action out\n"
        with running(config, resolver=f"127.0.0.1:{server.port}") as daemon:
            for _ in range(3):
                send(daemon, "b@slow.test")
            for _ in range(5):
                send(daemon, "b@fast.test")
            wait_until("what may go has gone", lambda: len(sink.mails) == 6)
            wait_until("queue knows it", lambda: daemon.stats()["scheduler.delivery.ok"] == "6")
            assert daemon.queued() == 2
            assert 'result="TempFail"' not in daemon.log
            daemon.ctl("remove", "all")
