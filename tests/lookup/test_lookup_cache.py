"""The bounded cache."""

from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.lookup.cache import FOREVER, Cache


def test_expiry() -> None:
    """An entry is good until it expires, not at that moment."""
    cache: Cache[str, int] = Cache(10)
    cache.put("a", 1, 5.0)
    assert cache.get("a", 4.9) == 1
    assert cache.get("a", 5.0) is None
    assert cache.get("b", 0.0) is None


def test_what_is_used_stays() -> None:
    """Entries in use survive a flood of others; the rest goes."""
    cache: Cache[int, int] = Cache(10)
    cache.put(-1, 7, FOREVER)
    cache.put(-2, 7, FOREVER)
    for number in range(100):
        cache.put(number, number, FOREVER)
        assert cache.get(-1, 0.0) == 7
    assert cache.get(-2, 0.0) is None
    assert len(cache) <= 10


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans())), st.integers(1, 8))
def test_never_over_its_bound_and_never_wrong(steps: list[tuple[int, bool]], limit: int) -> None:
    """Whatever is put and asked, the bound holds and a hit is the last value put."""
    cache: Cache[int, int] = Cache(limit)
    last: dict[int, int] = {}
    for at, (key, put) in enumerate(steps):
        if put:
            cache.put(key, at, FOREVER)
            last[key] = at
            assert cache.get(key, 0.0) == at
        else:
            assert cache.get(key, 0.0) in (None, last.get(key))
        assert len(cache) <= max(2, limit)
