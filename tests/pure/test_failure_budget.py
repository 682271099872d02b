"""pure/failure_budget: so many failures at once, and then as time passes."""

from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.failure_budget import FailureBudget


def test_the_budget_is_spent_and_comes_back() -> None:
    """The limit at once; then one more for every `forgiven_secs`, for that key alone."""
    budget = FailureBudget(3, 10.0)
    for _ in range(3):
        assert not budget.spent("a", 0.0)
        budget.failed("a", 0.0)
    assert budget.spent("a", 0.0)
    assert budget.spent("a", 9.0)
    assert not budget.spent("a", 10.0)
    assert not budget.spent("b", 0.0)
    budget.failed("a", 10.0)
    assert budget.spent("a", 10.0)
    assert not budget.spent("a", 40.0)


def test_memory_is_bounded() -> None:
    """Of too many keys the one that failed longest ago is forgotten."""
    budget = FailureBudget(1, 10.0, max_keys=2)
    for key in "abc":
        budget.failed(key, 0.0)
    assert [budget.spent(key, 0.0) for key in "abc"] == [False, True, True]


@given(st.lists(st.floats(0, 100)))
def test_failures_never_pile_up(gaps: list[float]) -> None:
    """Who was stopped is let in after `forgiven_secs`, however often it had failed before."""
    budget = FailureBudget(5, 10.0)
    now = 0.0
    for gap in gaps:
        now += gap
        budget.failed("a", now)
    assert not budget.spent("a", now + 10.001)
