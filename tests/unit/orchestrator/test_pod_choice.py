"""Which pod takes a job."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from s1vl_orchestrator.pod_choice import Standing, choose


@pytest.mark.parametrize(
    ("pods", "equals"),
    [
        ([Standing("a")], ["a"]),
        ([Standing("a"), Standing("b")], ["a", "b"]),
        ([Standing("a", seats=3), Standing("b", seats=2), Standing("c", seats=2)], ["b", "c"]),
        # Avoided pods wait, however little they have to do, unless all are.
        ([Standing("a", seats=9), Standing("b", avoided=True)], ["a"]),
        ([Standing("a", seats=9, avoided=True), Standing("b", seats=2, avoided=True)], ["b"]),
        ([Standing("a", avoided=True)], ["a"]),
        # What failed this very request comes after all that did not.
        ([Standing("a", failures=1), Standing("b", seats=9, avoided=True)], ["b"]),
        ([Standing("a", failures=2), Standing("b", failures=1, seats=9, avoided=True)], ["b"]),
        ([Standing("a", failures=1, avoided=True), Standing("b", failures=1, seats=5)], ["b"]),
        ([Standing("a", failures=4)], ["a"]),
    ],
)
def test_choice(pods: list[Standing], equals: list[str]) -> None:
    offered: list[str] = []

    def draw(among: Sequence[Standing]) -> Standing:
        offered.extend(pod.address for pod in among)
        return among[-1]

    assert choose(pods, draw).address == equals[-1]
    assert offered == equals


def test_instances_that_do_not_know_of_each_other_spread_their_jobs() -> None:
    """Eight with one job each on four pods: were ties to fall the same way, all eight would be on one."""
    generator = random.Random(7)
    taken = Counter(choose([Standing(name) for name in "abcd"], generator.choice).address for _ in range(8))
    assert len(taken) >= 3
    assert max(taken.values()) <= 4
