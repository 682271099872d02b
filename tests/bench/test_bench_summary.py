"""The benchmark's arithmetic: medians, failed runs, ratios."""

import pytest

from bench.summary import Result, Spread, failure_of, ratio, spread, summarise


def result(peer: str, number: int, value: float, failure: str = "") -> Result:
    return Result("W1", peer, number, {"rate": value, "load_error": ""}, failure)


def test_median_least_and_most_of_each_figure() -> None:
    """Each number of each server becomes median, least and most; texts are left out."""
    cell = summarise([result("a", 0, 30.0), result("a", 1, 10.0), result("a", 2, 20.0)])["W1"]["a"]
    assert cell.figures == {"rate": Spread(20.0, 10.0, 30.0, 3)}
    assert cell.runs == 3


def test_an_even_number_of_runs() -> None:
    """The median of two is between them."""
    assert spread([1.0, 2.0]).median == 1.5


def test_a_failed_run_counts_as_a_run_and_not_as_a_figure() -> None:
    """Its numbers say nothing about speed."""
    cell = summarise([result("a", 0, 10.0), result("a", 1, 9999.0, "3 clients failed")])["W1"]["a"]
    assert cell.figures["rate"] == Spread(10.0, 10.0, 10.0, 1)
    assert cell.failures == ["3 clients failed"]
    assert cell.runs == 2


def test_only_failed_runs_leave_no_figures() -> None:
    """A server that never got through has a cell without figures, not a zero."""
    cell = summarise([result("a", 0, 1.0, "no banner")])["W1"]["a"]
    assert cell.figures == {}


@pytest.mark.parametrize(
    ("ours", "theirs", "more_is_better", "times"),
    [
        (200.0, 100.0, True, 2.0),
        (50.0, 100.0, True, 0.5),
        (50.0, 100.0, False, 2.0),
        (0.0, 100.0, False, None),
        (100.0, 0.0, True, None),
        (100.0, 0.0, False, None),
    ],
)
def test_ratio_says_how_many_times_better_we_are(
    ours: float, theirs: float, more_is_better: bool, times: float | None
) -> None:
    """Above 1 is in our favour whatever the figure; nothing is said about zero."""
    found = ratio(spread([ours]), spread([theirs]), more_is_better)
    assert (found.median if found else None) == times


@pytest.mark.parametrize(("more_is_better", "wanted"), [(True, (2.0, 1.0, 6.0)), (False, (0.5, 1 / 6, 1.0))])
def test_the_range_of_a_ratio_is_that_of_single_runs(more_is_better: bool, wanted: tuple[float, ...]) -> None:
    """From our worst run beside their best to our best beside their worst."""
    found = ratio(spread([200.0, 150.0, 300.0]), spread([100.0, 50.0, 150.0]), more_is_better)
    assert found is not None
    assert (found.median, found.least, found.most) == pytest.approx(wanted)


def test_ratio_with_a_missing_side() -> None:
    """No figures, no ratio."""
    assert ratio(None, spread([1.0]), True) is None
    assert ratio(spread([1.0]), None, True) is None


def test_lost_mail_and_hung_clients_fail_a_run() -> None:
    """A server must not look fast by losing mail, or because clients gave up."""
    assert failure_of({"expected": 10, "delivered": 10, "clients_failed": 0}) == ""
    assert failure_of({"expected": 10, "delivered": 9}) == "9 of 10 arrived"
    assert failure_of({"clients_failed": 2, "load_error": "out of time"}) == "2 clients failed: out of time"
    assert failure_of({"greeted": 100}) == ""
