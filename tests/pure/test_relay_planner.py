"""Which server comes next: order, limits, penalties, and the TLS that is asked for."""

import pytest

from smtpd_ps.contract.values import RouteHost
from smtpd_ps.pure.relay_planner import (
    MAX_PENALTY_SECS,
    PLAIN_SECS,
    Exhausted,
    Servers,
    Target,
    Wait,
    choose,
    combined_tls,
    targets_of,
)

A = Target("a", "192.0.2.1", 25, 10)
B = Target("b", "192.0.2.2", 25, 10)
C = Target("c", "192.0.2.3", 25, 20)


def test_preference_then_fewest_connections():
    """The best preference first; within it the load is spread."""
    servers = Servers(2)
    order = []
    for _ in range(6):
        target = choose([C, A, B], servers, 0.0)
        assert isinstance(target, Target)
        servers.opened(target)
        order.append(target.name)
    assert order == ["a", "b", "a", "b", "c", "c"]
    assert choose([C, A, B], servers, 0.0) == Wait()
    servers.closed(C)
    assert choose([C, A, B], servers, 0.0) is C


def test_a_failed_server_is_left_alone_for_a_while():
    """The next one is taken; the penalty doubles to a bound; success forgets it."""
    servers = Servers(2)
    servers.failed(A, "refused", 0.0)
    assert choose([A, C], servers, 1.0) is C
    assert choose([A, C], servers, 2.0) is A
    servers.failed(A, "refused", 2.0)
    assert choose([A, C], servers, 5.9) is C
    for at in range(1, 51):
        servers.failed(A, "refused", 100.0 * at)
    assert choose([A, C], servers, 4999.9 + MAX_PENALTY_SECS) is C
    assert choose([A, C], servers, 5000.0 + MAX_PENALTY_SECS) is A
    servers.worked(A)
    for _ in range(5):  # connections that failed at once are one failure
        servers.failed(A, "refused", 6000.0)
    assert choose([A], servers, 6002.0) is A


def test_all_failed_says_what_the_last_one_said():
    """For the mail's log line and bounce."""
    servers = Servers(2)
    servers.failed(A, "refused", 0.0)
    servers.failed(B, "timeout", 1.0)
    assert choose([A, B], servers, 1.5) == Exhausted("timeout (192.0.2.2)")
    assert isinstance(choose([], servers, 0.0), Exhausted)


def test_a_full_server_beats_a_failed_one():
    """While some server works, mail waits for it rather than fail."""
    servers = Servers(1)
    servers.opened(A)
    servers.failed(B, "refused", 0.0)
    assert choose([A, B], servers, 0.0) == Wait()


def test_broken_tls_is_remembered_for_opportunistic_use_only():
    """Plain text for an hour, never where TLS was asked for."""
    servers = Servers(1)
    for target, use in ((A, "never"), (Target("a", "192.0.2.1", 25, tls="require"), "require")):
        servers.tls_broken(target, 0.0)
        assert servers.tls_use(target, 1.0) == use
    assert servers.tls_use(A, PLAIN_SECS + 1) == "opportunistic"


def test_servers_are_forgotten():
    """Only what still matters is kept."""
    servers = Servers(1)
    servers.opened(A)
    servers.failed(B, "x", 0.0)
    servers.get(C)
    servers.sweep(10.0)
    assert len(servers) == 2
    servers.closed(A)
    servers.sweep(1000.0)
    assert len(servers) == 0


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
