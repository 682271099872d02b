"""Clients' names, hosts' addresses, mail exchangers and relay routes."""

from collections.abc import Iterator

import pytest
from support.dns_server import DnsServer, run_until

from smtpd_ps.contract.messages import Route, RouteQuery
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import RouteHost, RouteSource
from smtpd_ps.lookup import peers
from smtpd_ps.lookup.addresses import AddressBook, HostAddresses, has_global_ipv6
from smtpd_ps.lookup.dns_exchange import Servers
from smtpd_ps.lookup.mail_hosts import MailExchangers, MailHosts
from smtpd_ps.lookup.peers import Peers
from smtpd_ps.lookup.relay_routes import RelayRoutes, split_credentials
from smtpd_ps.lookup.resolver import Resolver, Status
from smtpd_ps.pure.hosts_file import parse_hosts
from smtpd_ps.pure.relay_url import RelayUrlError
from smtpd_ps.pure.table import Table
from smtpd_ps.runtime.loop import Loop

HOSTS = b"127.0.0.1 localhost\n::1 localhost ip6-localhost\n192.0.2.50 Smart.test smart\n"


class World:
    def __init__(self, loop: Loop, server: DnsServer, ipv6_first: bool = False) -> None:
        self.loop, self.server = loop, server
        self.servers = Servers(loop, server.settings)
        self.resolver = Resolver(loop, self.servers)
        self.book = AddressBook(loop, self.resolver, parse_hosts(HOSTS), ipv6_first)
        self.exchangers = MailExchangers(loop, self.resolver, self.book)
        self.peers = Peers(loop, self.resolver, self.book)
        self.warnings: list[str] = []

    def resolve(self, host: str) -> HostAddresses:
        out: list[HostAddresses] = []
        self.book.resolve(host, out.append)
        run_until(self.loop, lambda: bool(out))
        return out[0]

    def find(self, domain: str) -> MailHosts:
        out: list[MailHosts] = []
        self.exchangers.find(domain, out.append)
        run_until(self.loop, lambda: bool(out))
        assert len(out) == 1
        return out[0]

    def peer(self, address: str) -> tuple[str, bool]:
        out: list[tuple[str, bool]] = []
        self.peers.ask(address, lambda name, confirmed, _told: out.append((name, confirmed)))
        run_until(self.loop, lambda: bool(out))
        return out[0]

    def told(self, address: str) -> tuple[str, bool]:
        """The name, and whether DNS told it or that there is none."""
        out: list[tuple[str, bool]] = []
        self.peers.ask(address, lambda name, _confirmed, told: out.append((name, told)))
        run_until(self.loop, lambda: bool(out))
        return out[0]

    def routes(self, *actions: ActionSettings, tables: dict[str, Table] | None = None) -> RelayRoutes:
        own = ("192.0.2.200", "127.0.0.1")
        return RelayRoutes(
            self.loop, actions, tables or {}, self.exchangers, self.book, self.warnings.append, None, own
        )

    def route(self, routes: RelayRoutes, action: str, domain: str = "") -> Route:
        out: list[Route] = []
        routes.find(RouteQuery(7, action, domain), out.append)
        run_until(self.loop, lambda: bool(out))
        assert out[0].query == 7
        return out[0]


@pytest.fixture
def world(loop: Loop, dns_server: DnsServer) -> Iterator[World]:
    made = World(loop, dns_server)
    yield made
    made.servers.close()


def test_hosts_file_and_literals_need_no_dns(world: World) -> None:
    """The hosts file, addresses, and localhost in any case."""
    assert world.resolve("SMART.test").addresses == ("192.0.2.50",)
    assert world.resolve("localhost").addresses == ("127.0.0.1", "::1")
    assert world.resolve("x.localhost").addresses == ("127.0.0.1", "::1")
    assert world.resolve("[IPv6:2001:DB8::1]").addresses == ("2001:db8::1",)
    assert world.resolve("192.0.2.1").addresses == ("192.0.2.1",)
    assert world.server.asked == []


def test_both_families(world: World, loop: Loop, dns_server: DnsServer) -> None:
    """A and AAAA, in the order that is likely to work."""
    dns_server.zone = {("h.test", "A"): ["192.0.2.1"], ("h.test", "AAAA"): ["2001:db8::1"]}
    assert world.resolve("h.test").addresses == ("192.0.2.1", "2001:db8::1")
    assert World(loop, dns_server, ipv6_first=True).resolve("h.test").addresses == ("2001:db8::1", "192.0.2.1")
    assert has_global_ipv6(("127.0.0.1", "2001:db8::1"))
    assert not has_global_ipv6(("::1", "fe80::1", "192.0.2.1", "rubbish"))


def test_addresses_are_bounded(world: World, dns_server: DnsServer) -> None:
    """A host has at most 32 addresses."""
    dns_server.truncated.add("h.test")
    dns_server.zone = {("h.test", "A"): [f"192.0.2.{n}" for n in range(1, 100)]}
    assert len(world.resolve("h.test").addresses) == 32


def test_no_addresses(world: World, dns_server: DnsServer) -> None:
    """Each way of having none."""
    dns_server.zone = {("h.test", "MX"): ["1 x.test."]}
    dns_server.rcodes["bad.test"] = 2
    assert world.resolve("h.test").status is Status.NO_DATA
    assert world.resolve("gone.test").status is Status.NO_NAME
    assert world.resolve("bad.test").status is Status.TEMPORARY


def test_mx_in_order_of_preference(world: World, dns_server: DnsServer) -> None:
    """Hosts by preference with their addresses; one without is left out."""
    dns_server.zone = {
        ("d.test", "MX"): ["20 b.test.", "10 a.test.", "30 none.test."],
        ("a.test", "A"): ["192.0.2.1"], ("b.test", "A"): ["192.0.2.2"],
    }  # fmt: skip
    assert world.find("D.test").hosts == (
        RouteHost("a.test", ("192.0.2.1",), 25, 10), RouteHost("b.test", ("192.0.2.2",), 25, 20),
    )  # fmt: skip


def test_no_mx_falls_back_to_the_domain(world: World, dns_server: DnsServer) -> None:
    """RFC 5321 5.1: the domain is its own exchanger."""
    dns_server.zone = {("d.test", "A"): ["192.0.2.1"]}
    assert world.find("d.test").hosts == (RouteHost("d.test", ("192.0.2.1",), 25),)
    assert world.find("[192.0.2.9]").hosts == (RouteHost("192.0.2.9", ("192.0.2.9",), 25),)


@pytest.mark.parametrize("mx", ["0 .", "10 localhost."])
def test_null_mx_is_permanent(world: World, dns_server: DnsServer, mx: str) -> None:
    """RFC 7505, and an exchanger "localhost" says the same."""
    dns_server.zone = {("d.test", "MX"): [mx], ("d.test", "A"): ["192.0.2.1"]}
    found = world.find("d.test")
    assert (found.hosts, found.temporary, found.text) == ((), False, "5.1.10 Domain does not accept mail")


def test_failures_for_a_domain(world: World, dns_server: DnsServer) -> None:
    """Only an authoritative "does not exist" is permanent (QUIRKS 38, 39)."""
    dns_server.zone = {
        ("nothing.test", "TXT"): ["x"], ("dangling.test", "MX"): ["10 gone.test."],
    }  # fmt: skip
    dns_server.rcodes["refused.test"] = 5
    dns_server.silent.add("silent.test")
    expected = {
        "gone.test": (False, "5.1.2 Domain does not exist"),
        "localhost": (False, "5.1.10 Domain does not accept mail"),
        "nothing.test": (True, "No MX found for domain"),
        "dangling.test": (True, "No MX found for domain"),
        "refused.test": (True, "Temporary failure in MX lookup"),
        "silent.test": (True, "Temporary failure in MX lookup"),
    }
    for domain, outcome in expected.items():
        found = world.find(domain)
        assert (found.hosts, found.temporary, found.text) == ((), *outcome), domain


def test_mx_hosts_are_bounded(world: World, dns_server: DnsServer) -> None:
    """Of thousands of exchangers the best 64 are taken."""
    dns_server.truncated.add("d.test")
    dns_server.zone = {("d.test", "MX"): [f"{n} m{n}.test." for n in range(300)]}
    dns_server.zone |= {(f"m{n}.test", "A"): ["192.0.2.1"] for n in range(300)}
    hosts = world.find("d.test").hosts
    assert [host.preference for host in hosts] == list(range(64))


def test_peer_confirmed(world: World, dns_server: DnsServer) -> None:
    """A PTR whose name has the address again is confirmed; then it is remembered."""
    dns_server.zone = {
        ("1.2.0.192.in-addr.arpa", "PTR"): ["client.test."], ("client.test", "A"): ["192.0.2.7", "192.0.2.1"],
        ("2.2.0.192.in-addr.arpa", "PTR"): ["liar.test."], ("liar.test", "A"): ["192.0.2.99"],
    }  # fmt: skip
    assert world.peer("192.0.2.1") == ("client.test", True)
    assert world.peer("192.0.2.2") == ("liar.test", False)
    asked = len(dns_server.asked)
    assert world.peer("192.0.2.1") == ("client.test", True)
    assert len(dns_server.asked) == asked


def test_peer_ipv6(world: World, dns_server: DnsServer) -> None:
    """IPv6 clients, compared by value."""
    reverse = "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"
    dns_server.zone = {(reverse, "PTR"): ["six.test."], ("six.test", "AAAA"): ["2001:db8:0::1"]}
    assert world.peer("2001:db8::1") == ("six.test", True)


def test_peer_without_dns(world: World) -> None:
    """Loopback, the local socket and the hosts file need no DNS."""
    assert world.peer("127.0.0.1") == ("localhost", True)
    assert world.peer("::1") == ("localhost", True)
    assert world.peer("127.3.2.1") == ("localhost", True)
    assert world.peer("local") == ("localhost", True)
    assert world.peer("192.0.2.50") == ("Smart.test", True)
    assert world.peer("rubbish") == ("", False)
    assert world.server.asked == []


def test_peer_without_name(world: World, dns_server: DnsServer) -> None:
    """No PTR, a failing server, and a name that is none: ""."""
    dns_server.rcodes["3.2.0.192.in-addr.arpa"] = 2
    dns_server.zone = {("4.2.0.192.in-addr.arpa", "PTR"): ["evil\\010name.test."]}
    assert world.peer("192.0.2.2") == ("", False)
    assert world.peer("192.0.2.3") == ("", False)
    assert world.peer("192.0.2.4") == ("", False)


def test_peer_whose_name_is_not_told(world: World, dns_server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is not the same as no answer: a rule on the name may act on the first alone."""
    monkeypatch.setattr(peers, "PATIENCE_SECS", 0.05)
    dns_server.rcodes["3.2.0.192.in-addr.arpa"] = 2
    dns_server.silent |= {"4.2.0.192.in-addr.arpa", "slow.test"}
    dns_server.zone = {("5.2.0.192.in-addr.arpa", "PTR"): ["slow.test."]}
    assert world.told("192.0.2.2") == ("", True)
    assert world.told("192.0.2.3") == ("", False)
    assert world.told("192.0.2.4") == ("", False)
    assert world.told("192.0.2.5") == ("slow.test", True)
    assert world.told("127.0.0.1") == ("localhost", True)


def test_peer_is_answered_in_time(world: World, dns_server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent name server does not keep a client waiting; what is known by then is told, unconfirmed."""
    monkeypatch.setattr(peers, "PATIENCE_SECS", 0.05)
    dns_server.silent |= {"2.2.0.192.in-addr.arpa", "slow.test"}
    dns_server.zone = {("3.2.0.192.in-addr.arpa", "PTR"): ["slow.test."]}
    assert world.peer("192.0.2.2") == ("", False)
    assert world.peer("192.0.2.3") == ("slow.test", False)


def test_route_by_mx(world: World, dns_server: DnsServer) -> None:
    """An action without hosts goes by MX; the TTL is the shortest of what was used."""
    dns_server.zone = {("d.test", "MX"): ["10 a.test."], ("a.test", "A"): ["192.0.2.1"]}
    dns_server.ttl = 120
    routes = world.routes(ActionSettings("out", "relay"))
    route = world.route(routes, "out", "d.test")
    assert route.hosts == (RouteHost("a.test", ("192.0.2.1",), 25, 10),)
    assert 100 <= route.ttl_secs <= 120
    gone = world.route(routes, "out", "gone.test")
    assert (gone.hosts, gone.temporary, gone.text) == ((), False, "5.1.2 Domain does not exist")


def test_route_to_a_smarthost(world: World) -> None:
    """Host, port and TLS come from the URL, credentials by its label."""
    tables = {"secrets": Table("secrets", "map", {"me": "joe:pa:ss"})}
    routes = world.routes(
        ActionSettings("smart", "relay", relay_hosts=("smtps://me@smart.test",), relay_auth_table="secrets"),
        ActionSettings("plain", "relay", relay_hosts=("smtp://smart.test:2525",)),
        ActionSettings("lmtp", "relay", relay_hosts=("lmtp://[::1]:24",)),
        tables=tables,
    )
    smart = world.route(routes, "smart")
    assert smart.hosts == (RouteHost("smart.test", ("192.0.2.50",), 465, 0, "implicit-verify", False, "joe", "pa:ss"),)
    plain = world.route(routes, "plain")
    assert plain.hosts == (RouteHost("smart.test", ("192.0.2.50",), 2525, 0, "opportunistic"),)
    assert world.route(routes, "lmtp").hosts == (RouteHost("::1", ("::1",), 24, 0, "never", True),)


def test_route_of_an_lmtp_action(world: World) -> None:
    """A host name is resolved for delivery, without TLS; a Unix socket is no route: the parent connects to it."""
    routes = world.routes(
        ActionSettings("tcp", "lmtp", lmtp_destination="smart.test:24"),
        ActionSettings("unix", "lmtp", lmtp_destination="/run/lmtp"),
    )
    assert world.route(routes, "tcp").hosts == (RouteHost("smart.test", ("192.0.2.50",), 24, 0, "never", True),)
    assert world.route(routes, "unix").hosts == ()


def test_route_round_robin(world: World) -> None:
    """A list of hosts is taken in turn; each answer holds shortly."""
    routes = world.routes(ActionSettings("rr", "relay", relay_hosts=("smart.test", "localhost:26")))
    names = [world.route(routes, "rr").hosts[0].name for _ in range(4)]
    assert names == ["smart.test", "localhost", "smart.test", "localhost"]
    assert world.route(routes, "rr").ttl_secs == 1


def test_route_failures_are_temporary(world: World, dns_server: DnsServer) -> None:
    """A smarthost that does not exist, missing credentials and an unknown action are our own faults."""
    routes = world.routes(
        ActionSettings("gone", "relay", relay_hosts=("gone.test",)),
        ActionSettings("nolabel", "relay", relay_hosts=("smtps://me@smart.test",), relay_auth_table="empty"),
        ActionSettings("local", "maildir"),
        tables={"empty": Table("empty", "map", {"me": "broken:"})},
    )
    for action in ("gone", "nolabel", "local", "unknown"):
        route = world.route(routes, action)
        assert (route.hosts, route.temporary) == ((), True), action
        assert route.text
    assert len(world.warnings) == 3


def test_bad_url_is_an_error_at_start(world: World) -> None:
    """Settings with a bad URL are refused when they arrive."""
    with pytest.raises(RelayUrlError):
        world.routes(ActionSettings("x", "relay", relay_hosts=("smtp://label@host",)))


def test_split_credentials() -> None:
    """user:password; a value without a colon belongs to the label."""
    assert split_credentials("l", "u:p:q") == ("u", "p:q")
    assert split_credentials("l", "secret") == ("l", "secret")
    assert split_credentials("l", ":p") is None
    assert split_credentials("l", "u:") is None
    assert split_credentials("l", "ab") is None


def test_backup_hosts_follow_in_order(world: World) -> None:
    """The host whose turn it is first, those that stand in for it behind, each with its own credentials."""
    routes = world.routes(
        ActionSettings(
            "a", "relay", relay_hosts=("smart.test", "localhost:26"), relay_auth_table="secrets",
            relay_backup_hosts=("smtps://me@[192.0.2.9]", "lmtp://[::1]:24"),
        ),
        tables={"secrets": Table("secrets", "map", {"me": "joe:pw"})},
    )  # fmt: skip
    for first in ("smart.test", "localhost"):
        hosts = world.route(routes, "a").hosts
        assert [(each.name, each.preference, each.user) for each in hosts] == [
            (first, 0, ""), ("192.0.2.9", 1, "joe"), ("::1", 2, "")]  # fmt: skip


def test_a_backup_host_serves_when_the_first_has_no_address(world: World, dns_server: DnsServer) -> None:
    """A host that cannot be looked up is skipped, for a short while."""
    dns_server.rcodes["broken.test"] = 2
    action = ActionSettings("a", "relay", relay_hosts=("broken.test",), relay_backup_hosts=("smart.test",))
    routes = world.routes(action)
    route = world.route(routes, "a")
    assert [each.name for each in route.hosts] == ["smart.test"]
    assert route.ttl_secs <= 60


def test_a_domain_has_its_own_host(world: World) -> None:
    """By the table of the action, in any case; a domain that is not in it waits, as in OpenSMTPD."""
    table = Table("t", "map", {"a.test": "smtp+tls://me@smart.test", "b.test": "lmtp://[::1]:24"})
    routes = world.routes(
        ActionSettings("a", "relay", relay_domain_table="t", relay_auth_table="s"),
        tables={"t": table, "s": Table("s", "map", {"me": "joe:pw"})},
    )
    assert world.route(routes, "a", "A.test").hosts == (
        RouteHost("smart.test", ("192.0.2.50",), 25, 0, "require-verify", False, "joe", "pw"),
    )
    assert world.route(routes, "a", "b.test").hosts[0].lmtp
    missing = world.route(routes, "a", "c.test")
    assert (missing.hosts, missing.temporary) == ((), True)
    assert missing.text == "Cannot retrieve smarthost: no entry for c.test"


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("b.test", ["a.test"]),
        ("c.test", ["a.test", "b.test"]),
        ("other.test", ["a.test", "b.test"]),
    ],
)
def test_a_backup_uses_what_is_preferred(world: World, dns_server: DnsServer, name: str, hosts: list[str]) -> None:
    """Exchangers before our own name; all of them where that name is not among them. Ours needs no address."""
    dns_server.zone = {
        ("d.test", "MX"): ["10 a.test.", "20 b.test.", "30 c.test."],
        ("a.test", "A"): ["192.0.2.1"],
        ("b.test", "A"): ["192.0.2.2"],
    }
    routes = world.routes(ActionSettings("a", "relay", relay_backup=name))
    assert [each.name for each in world.route(routes, "a", "d.test").hosts] == hosts


def test_the_best_exchanger_never_sends_to_those_behind_it(world: World, dns_server: DnsServer) -> None:
    """They would send it back: the mail waits, as in OpenSMTPD."""
    dns_server.zone = {("d.test", "MX"): ["10 a.test.", "10 b.test."], ("b.test", "A"): ["192.0.2.2"]}
    route = world.route(world.routes(ActionSettings("a", "relay", relay_backup="a.test")), "a", "d.test")
    assert (route.hosts, route.temporary) == ((), True)
    assert route.text.startswith("No MX found for destination")


def test_sources_and_their_names(world: World) -> None:
    """Sources in order with the name of each; one without a name is left out, and none left makes the mail wait."""
    tables = {
        "src": Table("src", "list", {"192.0.2.7": "", "[2001:db8::0001]": "", "192.0.2.8": ""}),
        "helo": Table("helo", "map", {"192.0.2.7": "a.test", "2001:db8::1": "b.test"}),
        "none": Table("none", "map", {}),
    }
    routes = world.routes(
        ActionSettings("plain", "relay", relay_hosts=("smart.test",), relay_src_table="src"),
        ActionSettings("both", "relay", relay_hosts=("smart.test",), relay_src_table="src", relay_helo_table="helo"),
        ActionSettings("kernel", "relay", relay_hosts=("smart.test",), relay_helo_table="helo"),
        ActionSettings("lost", "relay", relay_hosts=("smart.test",), relay_src_table="src", relay_helo_table="none"),
        tables=tables,
    )
    plain = world.route(routes, "plain")
    assert [each.address for each in plain.sources] == ["192.0.2.7", "2001:db8::1", "192.0.2.8"]
    assert plain.helo_names is None and plain.ttl_secs <= 60
    assert world.route(routes, "both").sources == (
        RouteSource("192.0.2.7", "a.test"), RouteSource("2001:db8::1", "b.test"))  # fmt: skip
    kernel = world.route(routes, "kernel")
    assert kernel.sources == () and kernel.helo_names is not None and len(kernel.helo_names) == 2
    lost = world.route(routes, "lost")
    assert (lost.hosts, lost.temporary) == ((), True)
    assert "source address" in lost.text


def test_an_exchanger_that_is_this_host_is_not_dialled(world: World, dns_server: DnsServer) -> None:
    """Nor those behind it; before it they are used. With none left the mail would come back to us: permanent."""
    dns_server.zone = {
        ("loop.test", "MX"): ["10 us.test.", "20 a.test."],
        ("second.test", "MX"): ["10 a.test.", "20 us.test.", "30 b.test."],
        ("lo.test", "MX"): ["10 localhost.lo.test."],
        ("bare.test", "A"): ["192.0.2.200"],
        ("us.test", "A"): ["192.0.2.200"],
        ("localhost.lo.test", "A"): ["127.0.0.1"],
        ("a.test", "A"): ["192.0.2.1"],
        ("b.test", "A"): ["192.0.2.2"],
    }
    routes = world.routes(ActionSettings("out", "relay"))
    for domain in ("loop.test", "lo.test", "bare.test", "[127.0.0.1]"):
        route = world.route(routes, "out", domain)
        assert (route.hosts, route.temporary) == ((), False), domain
        assert "loops back" in route.text
    assert [host.name for host in world.route(routes, "out", "second.test").hosts] == ["a.test"]


def test_exchangers_behind_a_cname_and_literals(world: World, dns_server: DnsServer) -> None:
    """A domain that is an alias has the exchangers of what it stands for; a literal is its own."""
    dns_server.zone = {
        ("alias.test", "CNAME"): ["real.test."],
        ("real.test", "MX"): ["5 mx.test."],
        ("mx.test", "CNAME"): ["host.test."],
        ("host.test", "A"): ["192.0.2.9"],
    }
    assert world.find("alias.test").hosts == (RouteHost("mx.test", ("192.0.2.9",), 25, 5),)
    assert world.find("[192.0.2.8]").hosts == (RouteHost("192.0.2.8", ("192.0.2.8",), 25),)
    assert world.find("[IPv6:2001:db8::8]").hosts[0].addresses == ("2001:db8::8",)
