"""Percentiles, goals and the lines that the bench prints."""

from __future__ import annotations

import json

import pytest

from bench.figures import Figure, percentile, percentiles


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([3, 1, 2], 50, 2),
        ([1, 2, 3, 4], 50, 2),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 11)), 99, 10),
        ([7], 50, 7),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("figure", "ok"),
    [
        (Figure("a.b", 8.0, "ms", 8), True),
        (Figure("a.b", 8.1, "ms", 8), False),
        (Figure("a.b", 49, goal=50, better="higher"), False),
        (Figure("a.b", 50, goal=50, better="higher"), True),
        (Figure("a.b", 1), None),
    ],
)
def test_goals(figure: Figure, ok: bool | None) -> None:
    assert figure.ok is ok
    assert json.loads(figure.line())["ok"] is ok


def test_times_are_told_in_milliseconds() -> None:
    median, slowest = percentiles("a.b", [0.001, 0.002, 0.003], 5)
    assert json.loads(median.line()) == {"name": "a.b_p50", "value": 2.0, "unit": "ms", "goal": 5, "ok": True}
    assert (slowest.name, slowest.value, slowest.ok) == ("a.b_p99", 3.0, None)
