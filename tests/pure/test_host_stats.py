"""What hosts said last: kept for four hours, bounded, with the mail that waits for them."""

from smtpd_ps.pure.host_stats import KEPT_SECS, MAX_DOMAINS, HostStats


def test_the_last_reply_of_a_domain() -> None:
    """One row a domain, the newest text, forgotten four hours later."""
    stats = HostStats(10)
    stats.told("a.test", "250 ok", 100.0)
    stats.told("b.test", "421 busy", 200.0)
    stats.told("a.test", "550 no", 300.0)
    assert list(stats.rows(300.0)) == [("b.test", 200, "421 busy"), ("a.test", 300, "550 no")]
    stats.sweep(200.0 + KEPT_SECS)
    assert list(stats.rows(200.0 + KEPT_SECS)) == [("a.test", 300, "550 no")]
    assert list(stats.rows(300.0 + KEPT_SECS)) == []


def test_domains_are_bounded() -> None:
    """Strangers choose the domains: the one that was heard of longest ago goes first."""
    stats = HostStats(10)
    for number in range(MAX_DOMAINS + 5):
        stats.told(f"d{number}.test", "x" * 5000, float(number))
    rows = list(stats.rows(float(MAX_DOMAINS)))
    assert len(rows) <= MAX_DOMAINS
    assert rows[-1][0] == f"d{MAX_DOMAINS + 4}.test"
    assert all(len(text) < 1000 for _domain, _told, text in rows)


def test_what_waits_is_released_once() -> None:
    """Up to max-deferred envelopes of a domain that was heard of; 0 keeps none."""
    stats = HostStats(2)
    stats.defer("a.test", 1)
    assert stats.release("a.test") == ()  # nothing was heard of it: nobody waits for news
    stats.told("a.test", "refused", 0.0)
    for evpid in (1, 2, 2, 3):
        stats.defer("a.test", evpid)
    assert stats.release("a.test") == (1, 2)
    assert stats.release("a.test") == ()
    none = HostStats(0)
    none.told("a.test", "refused", 0.0)
    none.defer("a.test", 1)
    assert none.release("a.test") == ()
