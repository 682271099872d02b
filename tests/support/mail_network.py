"""A small internet: Postfix and Exim on addresses of their own, names in dnsmasq, our daemon sending by MX."""

import contextlib
import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

from support.certs import make_key, write_acme
from support.daemon import Daemon, running, wait_until
from support.exim import Exim, exim
from support.peers import Mailboxes, dnsmasq, postfix

from bench.packages import Packages

SENDER = "anna@sender.test"
ADDRESSES = {
    "postfix.test": "127.0.0.51",
    "exim.test": "127.0.0.52",
    "login.test": "127.0.0.53",  # Exim without AUTH PLAIN and without DSN
    "busy.test": "127.0.0.54",  # Postfix that says 421 in place of its greeting
    "closed.test": "127.0.0.55",  # ... 554
    "later.test": "127.0.0.56",  # ... 450 to every recipient
    "never.test": "127.0.0.57",  # ... 550
    "dead.test": "127.0.0.58",  # nobody listens
    "six.test": "::1",
    "ours.test": "127.0.0.59",
}
MAIN_CF = """
myhostname = postfix.test
mynetworks = 192.0.2.1/32
inet_protocols = all
virtual_mailbox_domains = static:all
smtpd_tls_CAfile = {client}
smtpd_delay_reject = no
smtpd_error_sleep_time = 0
"""
MASTER_CF = """
127.0.0.51:465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
[::1]:25 inet n - n - - smtpd
127.0.0.54:25 inet n - n - - smtpd
  -o {{ smtpd_client_restrictions = check_client_access static:{{421 4.3.2 too busy}} }}
127.0.0.55:25 inet n - n - - smtpd
  -o {{ smtpd_client_restrictions = check_client_access static:{{554 5.7.1 go away}} }}
127.0.0.56:25 inet n - n - - smtpd
  -o {{ smtpd_recipient_restrictions = check_client_access static:{{450 4.2.0 greylisted}} }}
127.0.0.57:25 inet n - n - - smtpd
  -o {{ smtpd_recipient_restrictions = check_recipient_access static:{{550 5.1.1 no such user}} }}
"""
EXIM_AUTHENTICATORS = """\
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = ${{if and{{ {{def:tls_in_cipher}} {{eq{{$received_ip_address}}{{127.0.0.52}}}} }}}}
  server_condition = ${{lookup{{$auth2}}lsearch{{{passwords}}}{{${{if eq{{$value}}{{$auth3}}}}}}{{false}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = User : Pass
  server_advertise_condition = ${{if and{{ {{def:tls_in_cipher}} {{eq{{$received_ip_address}}{{127.0.0.53}}}} }}}}
  server_condition = ${{lookup{{$auth1}}lsearch{{{passwords}}}{{${{if eq{{$value}}{{$auth2}}}}}}{{false}}}}
  server_set_id = $auth1
"""
USER, PASSWORD = "relayuser", "correct horse battery"


class Network:
    """The peers and our daemon."""

    def __init__(self, folder: Path, boxes: Mailboxes, peer: Exim, daemon: Daemon) -> None:
        self._folder, self._boxes, self.exim, self.daemon = folder, boxes, peer, daemon

    @property
    def postfix_log(self) -> str:
        """What Postfix says."""
        return (self._folder / "postfix/log").read_text(errors="replace")

    def send(self, *recipients: str, sender: str = SENDER, body: str = "body\r\n", **parameters: str) -> None:
        """Hand a message in to our daemon; parameters for RCPT, or with `mail` for MAIL."""
        text = f"From: {sender or 'daemon@sender.test'}\r\nTo: {recipients[0]}\r\nSubject: relay\r\n\r\n{body}"
        with self.daemon.smtp() as client:
            mail, rcpt = (tuple(filter(None, [parameters.get(key)])) for key in ("mail", "rcpt"))
            client.sendmail(sender, recipients, text.encode(), mail, rcpt)

    def stored(self, recipient: str) -> list[tuple[str, EmailMessage]]:
        """What came for a recipient: the server's name and the message."""
        made = []
        for server, field, messages in (
            ("postfix", "Delivered-To", self._boxes.messages()),
            ("exim", "Envelope-To", self.exim.messages()),
        ):
            for data in messages:
                message = email.message_from_bytes(data, policy=email.policy.default)
                if str(message[field]).lower() == recipient.lower():
                    made.append((server, message))
        return made

    def arrived(self, recipient: str, count: int = 1) -> list[tuple[str, EmailMessage]]:
        """The same, once so many are there."""
        try:
            wait_until(f"{count} mails for {recipient}", lambda: len(self.stored(recipient)) >= count, 20)
        except AssertionError as error:
            queue = self.daemon.ctl("show", "queue")
            raise AssertionError(f"{error}\n{queue}\n{self.daemon.log[-5000:]}\n{self.postfix_log[-3000:]}") from None
        found = self.stored(recipient)
        assert len(found) == count
        return found

    def delivered(self, recipient: str, server: str = "postfix") -> EmailMessage:
        """Send a mail, and see it arrive there."""
        self.send(recipient)
        ((where, message),) = self.arrived(recipient)
        assert where == server
        return message

    def received(self, recipient: str, server: str = "postfix") -> str:
        """Send a mail; what the server that stores it says of the session: its Received field, on one line."""
        return " ".join(str(self.delivered(recipient, server)["Received"]).split())

    def waits(self, recipient: str, why: str) -> None:
        """Send a mail, and see it wait in our queue for this reason."""
        self.send(recipient)

        def told() -> bool:
            lines = self.daemon.ctl("show", "queue").splitlines()
            return any(f"|{recipient}|" in line and why in line for line in lines)

        try:
            wait_until(f"the mail to {recipient} waits", told, 20)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.daemon.ctl('show', 'queue')}\n{self.daemon.log[-5000:]}") from None
        assert self.stored(recipient) == []


@contextlib.contextmanager
def mail_network(packages: Packages, folder: Path, config: str, *records: str) -> Iterator[Network]:
    """All of it. `config` may use {dir} of the daemon, and {folder} with what is in it: ca.pem of the servers,
    certificates/client.test/live, logins. Records are dnsmasq's.
    """
    chains = {}
    for name in ("postfix.test", "exim.test", "client.test"):
        chains[name] = write_acme(folder / "certificates" / name, make_key("rsa"), name)
    (folder / "ca.pem").write_bytes(b"".join(chains[name][0].read_bytes() for name in ("postfix.test", "exim.test")))
    client = folder / "client.pem"
    client.write_bytes(chains["client.test"][0].read_bytes())
    (folder / "logins").write_text(f"me {USER}:{PASSWORD}\n")
    passwords = folder / "passwords"
    passwords.write_text(f"{USER}: {PASSWORD}\n")
    passwords.chmod(0o644)
    hosts = [f"--host-record={name},{address}" for name, address in ADDRESSES.items()]
    with (
        dnsmasq(folder / "dns", *hosts, *records) as resolver,
        postfix(
            folder / "postfix", ADDRESSES["postfix.test"], "postfix.test", *chains["postfix.test"],
            main=MAIN_CF.format(client=client), services=MASTER_CF.format(),
        ) as boxes,
        exim(
            packages, folder / "exim", ADDRESSES["exim.test"], "*", *chains["exim.test"], name="exim.test",
            interface=f"{ADDRESSES['exim.test']} : {ADDRESSES['login.test']}", main="allow_domain_literals = true",
            dsn_hosts="${if eq{$received_ip_address}{127.0.0.53}{}{*}}",
            authenticators=EXIM_AUTHENTICATORS.format(passwords=passwords),
        ) as peer,
        running(config.replace("{folder}", str(folder)), resolver=resolver) as daemon,
    ):  # fmt: skip
        yield Network(folder, boxes, peer, daemon)
