"""Figures: a value beside its goal, one JSON object a line, kept in ``bench/out``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: `<part>.<what>`, with `_p50` or `_p99` for percentiles.
        value: In `unit`.
        unit: ms, s, MiB, or empty for counts and ratios.
        goal: What to reach; None for numbers that only stand beside another for comparison.
        better: Whether the goal is the most or the least that the value may be.
    """

    name: str
    value: float
    unit: str = ""
    goal: float | None = None
    better: Literal["lower", "higher"] = "lower"

    @property
    def ok(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.better == "lower" else self.value >= self.goal

    def line(self) -> str:
        """The figure as one line of JSON."""
        shown = {key: value for key, value in asdict(self).items() if key != "better"}
        return json.dumps({**shown, "value": round(self.value, 3), "ok": self.ok})


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that `percent` % of them do not exceed (nearest rank).

    Raises:
        ValueError: If there are none.
    """
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def percentiles(
    name: str, seconds: Sequence[float], p50: float | None = None, p99: float | None = None
) -> list[Figure]:
    """Median and 99th percentile of times given in seconds, in ms, beside their goals in ms."""
    return [
        Figure(f"{name}_p50", percentile(seconds, 50) * 1000, "ms", p50),
        Figure(f"{name}_p99", percentile(seconds, 99) * 1000, "ms", p99),
    ]


def keep(part: str, figures: Sequence[Figure]) -> Path:
    """Write a part's figures to ``bench/out/<part>.json`` and return the file."""
    OUT.mkdir(exist_ok=True)
    file = OUT / f"{part}.json"
    file.write_text("".join(f"{figure.line()}\n" for figure in figures))
    return file
