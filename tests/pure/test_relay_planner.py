"""Which server comes next: order, limits, penalties, and the TLS that is asked for."""

import pytest

from smtpd_ps.contract.settings import MtaLimits
from smtpd_ps.contract.values import RouteHost, RouteSource
from smtpd_ps.pure.relay_network import MAX_PENALTY_SECS, PLAIN_SECS, Network, Target
from smtpd_ps.pure.relay_planner import (
    BLOCKED,
    MISMATCH,
    Choice,
    Exhausted,
    Usage,
    Wait,
    choose,
    combined_tls,
    targets_of,
)

A = Target("a", "192.0.2.1", 25, 10)
B = Target("b", "192.0.2.2", 25, 10)
C = Target("c", "192.0.2.3", 25, 20)
SIX = Target("a", "2001:db8::1", 25, 10)
X, Y = RouteSource("198.51.100.1", "x.test"), RouteSource("198.51.100.2", "y.test")
X6 = RouteSource("2001:db8:1::1")


def chosen(targets, network, now=0.0, sources=(), **usage):
    """The target, and its path opened."""
    limits = MtaLimits(**usage)
    found = choose(targets, sources, network, Usage(limits, "d.test"), now)
    assert isinstance(found, Choice), found
    return found


def fail(network, target, text, now, source=""):
    """A connection that never came to a session."""
    path = network.path(source, target, now)
    network.opened(path, "d.test", now)
    network.closed(path, "d.test", now)
    return network.failed(path, text, now)


def test_preference_then_fewest_connections():
    """The best preference first, within it the load is spread; a busy level is waited for, as in OpenSMTPD."""
    network = Network()
    order = []
    for _ in range(4):
        choice = chosen([C, A, B], network, max_connections_per_route=2)
        network.opened(choice.path, "d.test", 0.0)
        order.append(choice.target.name)
    assert order == ["a", "b", "a", "b"]
    limits = MtaLimits(max_connections_per_route=2)
    assert choose([C, A, B], (), network, Usage(limits, "d.test"), 0.0) == Wait(frozenset({"ROUTE"}))
    network.closed(network.path("", A, 0.0), "d.test", 0.0)
    assert chosen([C, A, B], network, max_connections_per_route=2).target is A


def test_a_disabled_route_is_left_for_the_next_preference():
    """15 s times the square of the penalty, one less each time that has passed; an hour is the most."""
    network = Network()
    assert fail(network, A, "refused", 0.0)
    assert chosen([A, C], network, 14.9).target is C
    assert chosen([A, C], network, 15.0).target is A
    path = network.path("", A, 15.0)
    assert path.penalty == 0 and path.is_new
    at = 100.0
    for penalty in range(1, 6):
        path.disable(1, at)
        assert path.penalty == penalty
        assert path.penalty_ends == at + min(15 * penalty**2, 3600)
        at += 1.0
    for _ in range(50):
        path.disable(2, at)
    assert path.penalty_ends == at + MAX_PENALTY_SECS
    path.settle(at + MAX_PENALTY_SECS - 1)
    assert path.disabled
    path.settle(at + MAX_PENALTY_SECS)
    assert not path.disabled and path.penalty
    path.settle(at + 1e6)
    assert path.penalty == 0


def test_connections_that_fail_at_once_are_one_failure():
    """Five connections, one penalty."""
    network = Network()
    path = network.path("", A, 0.0)
    for _ in range(5):
        network.opened(path, "d.test", 0.0)
    told = []
    for _ in range(5):
        network.closed(path, "d.test", 1.0)
        told.append(network.failed(path, "refused", 1.0))
    assert told == [True, False, False, False, False]
    assert path.penalty == 1


def test_failures_beside_sessions_that_work_are_the_hosts_limit():
    """A few refused connections do not disable a route on which others stand; more than four in a row do."""
    network = Network()
    path = network.path("", A, 0.0)
    network.opened(path, "d.test", 0.0)
    network.worked(path)
    assert [fail(network, A, "421 busy", 1.0) for _ in range(5)] == [False, False, False, False, True]
    assert path.penalty == 2
    assert chosen([A], network, 61.0).target is A


def test_all_failed_says_what_the_last_one_said():
    """For the mail's log line and bounce."""
    network = Network()
    fail(network, A, "refused", 0.0)
    fail(network, B, "timeout", 1.0)
    usage = Usage(MtaLimits())
    assert choose([A, B], (), network, usage, 1.5) == Exhausted("timeout (192.0.2.2)")
    assert isinstance(choose([], (), network, usage, 0.0), Exhausted)


def test_a_full_server_beats_a_failed_one():
    """While some server works, mail waits for it rather than fail."""
    network = Network()
    network.opened(network.path("", A, 0.0), "d.test", 0.0)
    fail(network, B, "refused", 0.0)
    limits = MtaLimits(max_connections_per_host=1)
    assert choose([A, B], (), network, Usage(limits, "d.test"), 0.0) == Wait(frozenset({"HOST"}))


def test_sources_by_family_and_in_turn():
    """A target gets a source of its own family, the sources take turns, and none that fits is a mismatch."""
    network = Network()
    usage = [Usage(MtaLimits(), turn=turn) for turn in range(3)]
    found = [choose([A], (X6, X, Y), network, each, 0.0) for each in usage]
    assert [each.source for each in found if isinstance(each, Choice)] == [X, X, Y]
    assert choose([SIX], (X, Y), network, usage[0], 0.0) == Exhausted(MISMATCH)
    six = choose([SIX, A], (X6, X), network, usage[0], 0.0)
    assert isinstance(six, Choice) and (six.target, six.source) == (SIX, X6)
    only_four = Usage(MtaLimits(family=4))
    four = choose([SIX, A], (), network, only_four, 0.0)
    assert isinstance(four, Choice) and four.target is A
    assert choose([SIX], (), network, only_four, 0.0) == Exhausted(MISMATCH)


def test_a_route_is_a_source_and_a_host():
    """What fails from one source may work from another, and a blocked source is not used."""
    network = Network()
    fail(network, A, "refused", 0.0, source=X.address)
    found = choose([A], (X, Y), network, Usage(MtaLimits()), 1.0)
    assert isinstance(found, Choice) and found.source is Y
    blocked = Usage(MtaLimits(), blocked={X.address, Y.address})
    assert choose([B], (X, Y), network, blocked, 1.0) == Exhausted(BLOCKED)


def test_an_action_does_not_suffer_from_another():
    """Whose credentials or certificates are refused is left alone under that action only."""
    network = Network()
    path = network.path("", A, 0.0, "wrong")
    network.opened(path, "d.test", 0.0)
    network.closed(path, "d.test", 0.0)
    assert network.failed(path, "certificate", 0.0)
    assert isinstance(choose([A], (), network, Usage(MtaLimits(), action="wrong"), 1.0), Exhausted)
    assert isinstance(choose([A], (), network, Usage(MtaLimits(), action="right"), 1.0), Choice)


@pytest.mark.parametrize(
    ("limit", "word"),
    [
        ("max_connections_per_host", "HOST"),
        ("max_connections_per_route", "ROUTE"),
        ("max_connections_per_source", "SOURCE"),
        ("max_connections_per_connector", "CONN"),
        ("max_connections_per_relay", "RELAY"),
        ("max_connections_per_domain", "DOMAIN"),
    ],
)
def test_every_limit_makes_mail_wait(limit, word):
    """At its limit, in OpenSMTPD's word for it; one connection less and there is a choice."""
    network = Network()
    path = network.path("", A, 0.0)
    for _ in range(2):
        network.opened(path, "d.test", 0.0)
    for most, full in ((2, True), (3, False)):
        usage = Usage(MtaLimits(**{limit: most}), "d.test", 2, {"": 2})
        found = choose([A], (), network, usage, 0.0)
        assert found == Wait(frozenset({word})) if full else isinstance(found, Choice)


def test_an_operator_resumes_routes():
    """By number, or all for 0; what was held against them is forgotten."""
    network = Network()
    fail(network, A, "refused", 0.0)
    fail(network, B, "refused", 0.0)
    first, second = network.paths(1.0)
    assert network.resume(second.id, 1.0) == (second,)
    assert (first.disabled, second.disabled, second.penalty) == (True, False, 0)
    assert network.resume(0, 1.0) == (first,)
    assert network.resume(7, 1.0) == ()


def test_broken_tls_is_remembered_for_opportunistic_use_only():
    """Plain text for an hour, never where TLS was asked for."""
    network = Network()
    for target, use in ((A, "never"), (Target("a", "192.0.2.1", 25, tls="require"), "require")):
        network.tls_broken(target, 0.0)
        assert network.tls_use(target, 1.0) == use
    assert network.tls_use(A, PLAIN_SECS + 1) == "opportunistic"


def test_routes_and_hosts_are_forgotten():
    """Only what still matters is kept, and counts of sources and domains end at nothing."""
    network = Network()
    path = network.path("", A, 0.0)
    network.opened(path, "d.test", 0.0)
    fail(network, B, "x", 0.0)
    network.host(C)
    network.sweep(1.0)
    assert {host.name for host in network.hosts} == {"a", "b"}
    network.closed(path, "d.test", 1.0)
    network.sweep(1000.0)
    assert network.hosts == () and list(network.paths(1000.0)) == []
    assert (network.sources, network.domains) == ({}, {})


def test_no_secret_in_a_repr():
    """A target may be printed by a test or an assertion."""
    assert "pw" not in repr(Target("a", "192.0.2.1", 25, user="me", password="pw"))


@pytest.mark.parametrize(
    ("action", "host", "both"),
    [
        ("opportunistic", "opportunistic", "opportunistic"),
        ("opportunistic", "never", "never"),
        ("opportunistic", "require-verify", "require-verify"),
        ("opportunistic", "implicit-verify", "implicit-verify"),
        ("require", "opportunistic", "require"),
        ("require", "require-verify", "require"),
        ("require", "implicit-verify", "implicit"),
        ("require", "never", "require"),
        ("require-verify", "opportunistic", "require-verify"),
        ("require-verify", "require-verify", "require-verify"),
        ("require-verify", "implicit-verify", "implicit-verify"),
        ("require-verify", "never", "require-verify"),
        ("never", "never", "never"),
    ],
)
def test_tls_of_action_and_url(action, host, both):
    """`tls` requires and verifies, `tls no-verify` drops the check, else the URL decides."""
    assert combined_tls(action, host) == both


def test_targets_keep_the_order_of_addresses():
    """Every address of every host, with the protocol of its URL (QUIRKS 44)."""
    hosts = (RouteHost("m", ("2001:db8::1", "192.0.2.1"), 25, 5), RouteHost("n", ("192.0.2.9",), 465, 5, "implicit"))
    targets = targets_of(hosts, "opportunistic")
    assert [(t.address, t.tls) for t in targets] == [
        ("2001:db8::1", "opportunistic"), ("192.0.2.1", "opportunistic"), ("192.0.2.9", "implicit")]  # fmt: skip
