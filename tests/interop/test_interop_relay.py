"""The options of a relay, as real servers see them: Postfix and Exim by MX, Dovecot by LMTP, OpenSMTPD."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certs import make_key, write_acme
from support.daemon import free_port, wait_until
from support.mail_network import SENDER, USER, Network, mail_network
from support.opensmtpd import opensmtpd
from support.peers import dovecot
from support.sink import sinking

from bench.packages import Packages

pytestmark = pytest.mark.timeout(120)

# One action for each option; the domain of a recipient chooses it, and all of them have an MX.
CONFIG = """
listen on 127.0.0.1 port {port} hostname ours.test
ca peers cert "{folder}/ca.pem"
pki client cert "{folder}/certificates/client.test/live/fullchain.pem"
pki client key "{folder}/certificates/client.test/live/privkey.pem"
table logins file:{folder}/logins
srs key "a secret of ours"
mta limit max-conn-per-host 100
table forwards { "bob@forwarder.test" = "bob@srs.test" }
action forward maildir virtual <forwards>
match from any for domain forwarder.test action forward
ACTIONS
"""
ACTIONS = {
    "default": "",
    "helo": "helo named.client.test",
    "source": 'src { 127.0.0.61 } helo-src { "127.0.0.61" = source.client.test }',
    "name-of-source": 'helo-src { "127.0.0.1" = kernel.client.test }',
    "verified": "tls ca peers",
    "unverified": "tls",
    "no-verify": "tls no-verify",
    "certificate": "pki client",
    "plain": 'host "smtp+notls://postfix.test"',
    "smtps": 'host "smtps://postfix.test" ca peers',
    "auth-plain": 'host "smtp+tls://me@exim.test" ca peers auth <logins>',
    "auth-login": 'host "smtp+tls://me@login.test" tls no-verify auth <logins>',
    "auth-unknown": 'host "smtp+tls://you@exim.test" ca peers auth <logins>',
    "shown": 'mail-from "someone@shown.test"',
    "shown-domain": 'mail-from "@shown.test"',
    "srs": "srs",
    "map-a": 'domain { "map-a.test" = "smtp://postfix.test", "map-b.test" = "smtp+notls://exim.test" }',
    "map-b": 'domain { "map-a.test" = "smtp://postfix.test", "map-b.test" = "smtp+notls://exim.test" }',
    "list": 'host { "smtp://postfix.test", "smtp://exim.test" }',
    "failover": 'host "smtp://dead.test" backup host { "smtp://closed.test", "smtp://exim.test" }',
    "backup": "backup mx ours.test",
    "backup-only": "backup mx ours.test",
    "tls12": 'protocols "TLSv1.2" ciphers "ECDHE-RSA-CHACHA20-POLY1305"',
    "tls13": 'protocols "TLSv1.3"',
    "lmtp": 'host "lmtp://127.0.0.1:LMTP"',
    "old": 'host "smtp://127.0.0.1:OPENSMTPD"',
    "old-tls": 'host "smtp+tls://127.0.0.1:OPENSMTPD" tls no-verify',
}
RECORDS = [
    *(f"--mx-host={name}.test,postfix.test,10" for name in (*ACTIONS, "sender") if not name.startswith("backup")),
    "--mx-host=backup.test,postfix.test,10", "--mx-host=backup.test,ours.test,20", "--mx-host=backup.test,exim.test,30",
    "--mx-host=backup-only.test,dead.test,10", "--mx-host=backup-only.test,ours.test,20",
    "--mx-host=backup-only.test,exim.test,30",
]  # fmt: skip


def configuration(lmtp: int, theirs: int) -> str:
    """smtpd.conf with the actions in it."""
    actions = "\n".join(f'action "{name}" relay {options}' for name, options in ACTIONS.items())
    matches = "\n".join(f'match from any for domain {name}.test action "{name}"' for name in ACTIONS)
    lines = f"{actions}\n{matches}\nmatch from any for any action default"
    return CONFIG.replace("ACTIONS", lines).replace("LMTP", str(lmtp)).replace("OPENSMTPD", str(theirs))


LMTP_PORT, OPENSMTPD_PORT = free_port(), free_port()


@pytest.fixture(scope="module")
def network(module_scratch: Path, packages: Packages) -> Iterator[Network]:
    """Our daemon with all the actions, and its peers."""
    config = configuration(LMTP_PORT, OPENSMTPD_PORT)
    with mail_network(packages, module_scratch, config, *RECORDS) as made:
        yield made


def test_by_default_tls_where_offered(network: Network) -> None:
    """By MX, under our server's name, with STARTTLS since Postfix offers it, unverified."""
    received = network.received("x@default.test")
    assert received.startswith(f"from {socket.gethostname()} (")
    assert "(using TLSv1.3 with cipher " in received and "(No client certificate requested)" not in received


def test_helo(network: Network) -> None:
    """`helo` is the name that Postfix hears."""
    assert network.received("x@helo.test").startswith("from named.client.test (")


def test_source_address_and_its_name(network: Network) -> None:
    """`src` is the address that Postfix sees, `helo-src` the name that goes with it."""
    assert network.received("x@source.test").startswith("from source.client.test (unknown [127.0.0.61])")


def test_name_of_the_kernels_choice(network: Network) -> None:
    """`helo-src` without `src` has the name of the address that the kernel chose."""
    assert re.match(r"from kernel\.client\.test \(\S+ \[127\.0\.0\.1\]\)", network.received("x@name-of-source.test"))


def test_verified_tls(network: Network) -> None:
    """`tls` with `ca` sends under TLS to a server whose certificate is for the name of the MX."""
    assert "(using TLSv1.3" in network.received("x@verified.test")


def test_a_certificate_that_nobody_vouches_for(network: Network) -> None:
    """`tls` against the system's authorities: the mail waits, for Postfix's certificate is its own."""
    network.waits("x@unverified.test", "certificate")


def test_tls_without_verification(network: Network) -> None:
    """`tls no-verify` takes any certificate."""
    assert "(using TLSv1.3" in network.received("x@no-verify.test")


def test_client_certificate(network: Network) -> None:
    """`pki` is the certificate that Postfix sees, and it is signed with by keys."""
    received = network.received("x@certificate.test")
    assert '(Client CN "client.test", Issuer "client.test" (verified OK))' in received


def test_no_tls(network: Network) -> None:
    """`smtp+notls` stays in clear though STARTTLS is offered."""
    received = network.received("x@plain.test")
    assert "TLS" not in received and " with ESMTP id " in received


def test_implicit_tls(network: Network) -> None:
    """`smtps` goes to port 465 and begins with TLS."""
    assert " with ESMTPS id " in network.received("x@smtps.test")
    network.daemon.wait_logged("mta connecting address=smtps://127.0.0.51:465 host=postfix.test")


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_auth(network: Network, mechanism: str) -> None:
    """The user and password of the URL's label log in to Exim, with what it offers."""
    assert " with esmtpsa " in network.received(f"x@auth-{mechanism}.test", "exim")
    line = next(line for line in network.exim.log.splitlines() if f"for x@auth-{mechanism}.test" in line)
    assert f" A={mechanism}:{USER} " in line
    assert "correct horse" not in network.daemon.log


def test_auth_without_credentials(network: Network) -> None:
    """A label that the file does not have: the mail waits, and nobody is asked."""
    network.waits("x@auth-unknown.test", "No credentials for exim.test")


def test_mail_from(network: Network) -> None:
    """`mail-from` is the sender that Postfix stores, as a whole or with the user kept."""
    assert network.delivered("x@shown.test")["Return-Path"] == "<someone@shown.test>"
    assert network.delivered("x@shown-domain.test")["Return-Path"] == "<anna@shown.test>"


def test_srs(network: Network) -> None:
    """What is forwarded shows an address of ours to Postfix; what is relayed alone keeps its sender."""
    assert network.delivered("x@srs.test")["Return-Path"] == f"<{SENDER}>"
    network.send("bob@forwarder.test")
    ((_server, message),) = network.arrived("bob@srs.test")
    assert re.fullmatch(r"<SRS0=\S+=sender\.test=anna@forwarder\.test>", message["Return-Path"])


def test_map_of_domains(network: Network) -> None:
    """`domain` sends each domain to its own host, its MX notwithstanding."""
    assert "(using TLSv1.3" in network.received("x@map-a.test")
    assert " with esmtp " in network.received("x@map-b.test", "exim")


def test_list_of_hosts(network: Network) -> None:
    """`host` with several URLs goes around."""

    def went_around() -> bool:
        network.send("x@list.test")
        return {server for server, _message in network.stored("x@list.test")} == {"postfix", "exim"}

    wait_until("each has got one", went_around)


def test_backup_hosts(network: Network) -> None:
    """`backup host`: where a host is dead, and the next says 554, the third gets the mail."""
    network.delivered("x@failover.test", "exim")


def test_backup_mx(network: Network) -> None:
    """`backup mx` gives mail to exchangers before us, never to one behind us."""
    network.delivered("x@backup.test")
    network.waits("x@backup-only.test", "Connection refused (127.0.0.58)")


def test_protocols_and_ciphers(network: Network) -> None:
    """`protocols` and `ciphers` decide what Postfix negotiates."""
    assert "(using TLSv1.2 with cipher ECDHE-RSA-CHACHA20-POLY1305 " in network.received("x@tls12.test")
    assert "(using TLSv1.3 with cipher " in network.received("x@tls13.test")


def test_lmtp(network: Network, scratch: Path) -> None:
    """`lmtp://` speaks LMTP to Dovecot, which answers for each recipient."""
    with dovecot(scratch / "store", LMTP_PORT) as boxes:
        network.send("one@lmtp.test", "two@lmtp.test")
        wait_until("both are stored", lambda: len(boxes.messages()) == 2)
        boxes_of = {path.parents[1].name for path in boxes.folder.glob("*/new/*")}
        assert boxes_of == {"one@lmtp.test", "two@lmtp.test"}
        assert all(b"with LMTP" in message for message in boxes.messages())


def test_opensmtpd(network: Network, scratch: Path, packages: Packages) -> None:
    """Debian's OpenSMTPD fails every TLS handshake: without `tls` the mail goes in clear, with it the mail waits."""
    chain, key = write_acme(scratch / "cert", make_key("rsa"), "localhost")
    with sinking() as sink:
        config = (
            f'pki theirs cert "{chain}"\npki theirs key "{key}"\n'
            f"listen on 127.0.0.1 port {OPENSMTPD_PORT} tls pki theirs hostname theirs.test\n"
            f'action out relay host "smtp://127.0.0.1:{sink.port}"\nmatch from any for any action out\n'
        )
        with opensmtpd(scratch / "theirs", config, OPENSMTPD_PORT, packages):
            network.waits("x@old-tls.test", "tls: ")
            network.send("x@old.test")
            wait_until("OpenSMTPD has passed it on", lambda: sink.mails)
            assert b"\tby theirs.test (OpenSMTPD) with ESMTP id " in sink.mails[0].data
            network.daemon.wait_logged("mta disconnected reason=tls: ")
            assert [mail.recipients for mail in sink.mails] == [["x@old.test"]]
