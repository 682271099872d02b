"""Real daemons for the dialogue scripts: what a case's settings are in smtpd.conf, and why some cases cannot be played.

Every session comes by a PROXY header, so that a client has the address which its case gives it. Recipients: `bad` is
refused by a rule, `later` has a user whom delivery may not serve; all others are relayed to a sink.
"""

import contextlib
import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, running
from support.dialogue_cases import Case
from support.ports import HERE, free_ports
from support.sink import Behaviour, Sink, sinking

from smtpd_ps.config.directives.filters import PHASES

HOST = "mx.example.com"
WAYS = ("as written", "STARTTLS", "implicit TLS")
_GLOBALS = {
    "max_message_bytes": "smtp max-message-size {}",
    "max_mails": "smtp limit max-mails {}",
    "max_recipients": "smtp limit max-rcpt {}",
}
_FLAGS = {"mask_source": "mask-src", "received_auth": "received-auth"}
_OPTIONS = {"tls", "auth", "auth_table", "hostname", "hostnames", "senders", "masquerade", "dsn", "filters"}
_SAME = {"port", "address"}  # make a submission, as loopback does
_UNPLAYABLE_LINES = {
    "hold": "an answer is held back",
    "release": "an answer is held back",
    "drain": "the daemon stops",
    "cut": "the daemon stops",
    "idle": "five minutes of silence",
}
_FAILS = r"full@|broken@|AHVzZXIAYnJva2Vu"  # queue and lookup would have to fail
_COMMON = """
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
table users { "user" = "SECRET", "a (b; \u00fc" = "SECRET" }
table own { "user" = "own@b.example" }
table nobody { "later" = "0:0:/root" }
"""
_RULES = """
action out relay host "smtp+notls://127.0.0.1:SINK"
action unserved maildir "/nowhere" userbase <nobody>
listen on 127.0.0.1 port {port}
match from any for rcpt-to regex "^bad@" reject
match from any for rcpt-to "later@example.com" action unserved
match from any for any action out
"""


def cannot_play(case: Case) -> str:
    """Why a daemon cannot be made to play this case; "" if it can."""
    begun = False
    for _number, line in case.lines:
        head, _, rest = line.partition(" ")
        if reason := _UNPLAYABLE_LINES.get(head):
            return reason
        if head == "set":
            for pair in rest.split():
                key, _, value = pair.partition("=")
                if key not in _GLOBALS.keys() | _FLAGS.keys() | _OPTIONS | _SAME | {"local"}:
                    return f"no directive sets {key}"
                if key == "filters" and "starttls" in value:
                    return "no builtin filter has this phase"
        if head == "filter":
            if begun:
                return "a filter changes its mind"
            if re.search(r"reject 250|\t|bad name|<a@b@c>", rest):
                return "smtpd.conf does not take the text of a filter"
        if head == "c":
            begun = True
            if rest.startswith("gone tls:"):
                return "a fault of TLS"
            if re.search(_FAILS, rest):
                return "lookup or queue fails"
    return ""


@dataclass(frozen=True)
class Needs:
    """What a case needs of smtpd.conf: directives for all, options of its listener, filters by its number."""

    directives: frozenset[str] = frozenset()
    options: str = ""
    filters: str = ""
    local: bool = False


def needs_of(case: Case, way: str) -> Needs:
    """The settings of a case that can be played."""
    settings, client, decisions = {"tls": "offer"}, "192.0.2.1", []
    for _number, line in case.lines:
        head, _, rest = line.partition(" ")
        if head == "set":
            settings.update(pair.split("=", 1) for pair in rest.split())
        elif head == "connect":
            client = rest
        elif head == "filter":
            decisions.append(rest.split(" ", 2))
    if way != "as written":
        settings["tls"] = {"STARTTLS": "offer", "implicit TLS": "implicit"}[way]
    directives = frozenset(form.format(settings[key]) for key, form in _GLOBALS.items() if key in settings)
    tls = {"offer": "tls", "require": "tls-require", "implicit": "smtps", "none": ""}[settings["tls"]]
    words = [f"{tls} pki mxkey" if tls else ""]
    if settings.get("auth"):
        words.append("auth <users>" if settings["auth"] == "require" else "auth-optional <users>")
    words.append(f"hostname {settings.get('hostname', HOST)}")
    if settings.get("hostnames"):
        ours = "192.0.2.99" if client == "192.0.2.2" else HERE
        words.append(f'hostnames {{ "{ours}" = "named.example" }}')
    if settings.get("senders"):
        words.append(f"senders <own> {'masquerade' if settings.get('masquerade') else ''}")
    words += [word for key, word in _FLAGS.items() if settings.get(key)]
    if settings.get("dsn") == "false":
        words.append("no-dsn")
    return Needs(directives, " ".join(words), _filters(settings.get("filters", ""), decisions), client == "local")


def _filters(phases: str, decisions: list[list[str]]) -> str:
    """Bodies of filters, one a line: those with a decision, and for other phases one that never has one."""
    decided = {phase: (words[0], "".join(words[1:])) for phase, *words in decisions}
    bodies = []
    for phase in phases.split(",") if phases else ():
        if phase in decided:
            decision, text = decided[phase]
            bodies.append(f'phase {phase} match !src "203.0.113.0/24" {decision} "{text}"')
        elif phase in PHASES:
            bodies.append(f'phase {phase} match src "203.0.113.0/24" reject "550 never"')
    return "\n".join(bodies)


@dataclass
class Stage:
    """A daemon with a listener for each kind of need."""

    daemon: Daemon
    sink: Sink
    ports: dict[Needs, int]
    mails: dict[str, bytes] = field(default_factory=dict)  # what has arrived, by message id
    _seen: int = 0

    def stored(self, msgid: str) -> bytes | None:
        """The message of this id, once it has arrived."""
        while self._seen < len(self.sink.mails):
            data = self.sink.mails[self._seen].data
            self._seen += 1
            if found := re.search(rb"\bid ([0-9a-f]{8})\b", data):
                self.mails[found[1].decode()] = data
        return self.mails.get(msgid)

    def connect(self, needs: Needs, client: str) -> socket.socket:
        """A connection of `client` to the listener that a case needs."""
        if needs.local:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(20)
            sock.connect(str(self.daemon.state / "run/smtpd_ps.sock"))
            return sock
        sock = socket.create_connection((HERE, self.ports[needs]), 20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(proxy_header(client))
        return sock


def proxy_header(client: str, ours: str = "192.0.2.9") -> bytes:
    """A PROXY header, version 2: TCP from `client`."""
    address = ipaddress.ip_address(client)
    here = ipaddress.ip_address(ours if address.version == 4 else "2001:db8::9")
    body = address.packed + here.packed + struct.pack("!HH", 40000, 25)
    family = 0x11 if address.version == 4 else 0x21
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, len(body)) + body


@contextlib.contextmanager
def stages(every: Iterable[Needs], resolver: str) -> Iterator[dict[Needs, Stage]]:
    """As few daemons as there are kinds of limits that exclude each other, and all listeners on them."""
    groups: dict[str, set[Needs]] = {}
    for needs in every:
        sizes = [word for word in needs.directives if "size" in word]
        name = sizes[0] if sizes else "counts" if needs.directives else ""
        groups.setdefault(name, set()).add(needs)
    with contextlib.ExitStack() as stack:
        found: dict[Needs, Stage] = {}
        for group in groups.values():
            stage = stack.enter_context(_stage(sorted(group, key=repr), resolver))
            found |= dict.fromkeys(group, stage)
        yield found


@contextlib.contextmanager
def _stage(group: list[Needs], resolver: str) -> Iterator[Stage]:
    with sinking(
        behaviour=Behaviour(extensions=("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 36700160", "DSN"))
    ) as sink:
        ports = dict(zip(group, free_ports(len(group)), strict=True))
        secret = cli("smtpctl_ps", "encrypt", "secret").stdout.strip()
        lines = [*sorted(frozenset().union(*(needs.directives for needs in group))), _COMMON.replace("SECRET", secret)]
        for number, (needs, port) in enumerate(ports.items()):
            if needs.local:
                continue
            names = []
            for at, body in enumerate(needs.filters.splitlines()):
                names.append(f"f{number}x{at}")
                lines.append(f"filter {names[-1]} {body}")
            chain = f"filter {{ {', '.join(names)} }}" if names else ""
            lines.append(f"listen on {HERE} port {port} proxy-v2 {needs.options} {chain}")
        config = "\n".join(lines) + _RULES.replace("SINK", str(sink.port))
        with running(config, resolver=resolver, prepare=_certificate) as daemon:
            yield Stage(daemon, sink, ports)


def _certificate(folder: Path) -> None:
    write_acme(folder / "acme", make_key("ecdsa"))
