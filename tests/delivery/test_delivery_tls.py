"""Relaying under TLS: STARTTLS, verification, implicit TLS and AUTH, against a real TLS server."""

import contextlib
import ssl
import time

import pytest
from delivery_sink import Script, Sink
from support.certs import make_key, write_acme

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import FILTER_EVENTS, ActionSettings, DeliverySettings
from smtpd_ps.contract.values import Dsn, Job, Process, Recipient, Result, RouteHost, Status
from smtpd_ps.delivery.service import Delivery
from smtpd_ps.delivery.tls_clients import MakePump, make_pumps, no_tls
from smtpd_ps.runtime import tls, tls_context
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop

BODY = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    chain, key = write_acme(tmp_path_factory.mktemp("tls"), make_key("ecdsa"), "sink.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context, chain.read_text()


@pytest.fixture
def deliver(certificate):
    """Deliver one message to a TLS sink; its sink and its result."""
    context, ca_pem = certificate

    def trusting(_action: str, verify: bool, hostname: str):
        """As make_pumps does, but with the test's certificate for the system's CAs."""
        return tls.client_pump(tls_context.client_context(verify=verify, ca_pem=ca_pem), hostname)

    with contextlib.ExitStack() as stack:

        def run(
            use: str, name: str = "sink.test", implicit: bool = False, pump: MakePump | None = None, told=None, **route
        ):
            offers = (b"PIPELINING", b"AUTH LOGIN PLAIN")
            sink = Sink(Script(tls=context, implicit_tls=implicit, offers=offers))
            stack.callback(sink.close)
            loop = Loop()
            action = ActionSettings("send", "relay", relay_hosts=("x",), relay_tls=use)
            settings = DeliverySettings("client.test", (action,), ())
            delivery = Delivery(loop, Log(Process.DELIVERY, True), settings, pump or trusting, time.time)
            results: list[Result] = []
            delivery.outcomes.send = lambda outcome: results.extend(outcome.results)
            host = RouteHost(name, ("127.0.0.1",), sink.port, **route)
            if told is not None:
                delivery.reporting.send = told.append
                delivery.outgoing_hooks(m.OutgoingHooks("send", (1 << len(FILTER_EVENTS)) - 1, 0))
            delivery.ask_lookup = lambda query: delivery.route(m.Route(query.query, (host,), 60))
            recipient = Recipient(1 << 32, "x@d.test", "x@d.test", "", Dsn())
            delivery.deliver(m.Deliver((Job(1, "send", "", (recipient,), 1000, len(BODY), False, BODY),)))
            deadline = time.monotonic() + 5
            while not results:
                assert time.monotonic() < deadline
                loop.turn(0.05)
            for pool in delivery._pools.values():
                for connection in list(pool.connections):
                    connection.abort()
            return sink, results[0]

        yield run


@pytest.mark.parametrize("use", ["opportunistic", "require", "require-verify"])
def test_starttls_protects_the_mail(deliver, use):
    """EHLO, STARTTLS, EHLO again, and only then MAIL; a good certificate passes where it is asked for."""
    sink, result = deliver(use)
    assert result.status is Status.OK
    verbs = [command.split(b" ")[0] for command in sink.commands[:4]]
    assert verbs == [b"EHLO", b"STARTTLS", b"EHLO", b"MAIL"]
    assert sink.messages[0][2] == BODY


def test_a_certificate_of_another_name_is_not_verified(deliver):
    """With verification the mail waits; without, opportunistic TLS takes any certificate."""
    sink, result = deliver("require-verify", name="other.test")
    assert result.status is Status.TEMPFAIL
    assert "ertificate" in result.text or "ostname" in result.text
    assert sink.messages == []
    assert deliver("opportunistic", name="other.test")[1].status is Status.OK
    assert deliver("require", name="other.test")[1].status is Status.OK


@pytest.mark.parametrize("use", ["implicit", "implicit-verify"])
def test_implicit_tls(deliver, use):
    """smtps: the handshake comes before the greeting, and no STARTTLS after it."""
    sink, result = deliver(use, implicit=True)
    assert result.status is Status.OK
    assert b"STARTTLS" not in sink.commands


@pytest.mark.parametrize("use", ["require", "implicit"])
def test_filters_are_told_of_tls_and_auth(deliver, use):
    """link-tls before the EHLO that follows, link-auth with the user, and no password."""
    told = []
    _sink, result = deliver(use, implicit=use == "implicit", told=told, user="me", password="secret")
    assert result.status is Status.OK
    events = [report.event for report in told if report.event.startswith("link-")]
    greeted = ["link-greeting", "link-identify"]
    before = ["link-tls", *greeted] if use == "implicit" else [*greeted, "link-tls", "link-identify"]
    assert events == ["link-connect", *before, "link-auth", "link-disconnect"]
    (tls_told,) = [report.parameters[0] for report in told if report.event == "link-tls"]
    assert tls_told.startswith("TLSv1.")
    assert ("pass", "me") in [report.parameters for report in told]
    assert not any("AG1lAHNlY3JldA==" in text for report in told for text in report.parameters)


def test_auth_goes_under_tls_only(deliver):
    """The credentials of the Route, by PLAIN, after the handshake."""
    sink, result = deliver("require", user="me", password="secret")
    assert result.status is Status.OK
    assert b"AUTH PLAIN AG1lAHNlY3JldA==" in sink.commands
    sink, result = deliver("never", user="me", password="secret")
    assert result.status is Status.TEMPFAIL
    assert not any(command.startswith(b"AUTH") for command in sink.commands)


def test_without_relays_there_is_no_tls():
    """A delivery that only stores mail makes no context; asking it for one is an error, not a crash."""
    settings = DeliverySettings("x", (ActionSettings("box", "maildir"),), ())
    assert make_pumps(settings, {}, lambda: None) is no_tls
    with pytest.raises(tls.TlsError):
        no_tls("", False, "x")


def test_contexts_are_made_for_the_verification_that_may_be_asked_for():
    """No CA is loaded where nothing verifies; a context that was not made is an error of that connection."""
    relay = ActionSettings("send", "relay")
    make = make_pumps(DeliverySettings("x", (relay,), ()), {}, lambda: None)
    make("send", False, "host.test")
    with pytest.raises(tls.TlsError):
        make("send", True, "host.test")
