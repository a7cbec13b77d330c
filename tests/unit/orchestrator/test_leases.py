"""Who uses a sandbox, and until when one that may have slept is waited for."""

from __future__ import annotations

import math

import pytest

from s1vl_orchestrator.leases import Usage
from s1vl_orchestrator.telemetry import Metrics

IDLE, PATIENCE = 300.0, 270.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def never(_: str) -> None:
    raise AssertionError


@pytest.fixture
async def usage() -> Usage:
    usage = Usage("chem", never, Metrics(), Clock())
    # As in a configuration that has no Lease yet: nothing is renewed, and nothing sleeps.
    usage.follow("", IDLE, PATIENCE)
    return usage


def clock(usage: Usage) -> Clock:
    assert isinstance(usage._clock, Clock)
    return usage._clock


def awaited(usage: Usage, away_since: float) -> float:
    usage._lease = "demo-tenant-chem"
    return usage.wake_until(away_since)


async def test_the_first_to_come_wakes_it(usage: Usage) -> None:
    with usage.use():
        assert awaited(usage, away_since=0) == 1000 + PATIENCE
        clock(usage).now = 1100
        with usage.use():
            assert awaited(usage, away_since=0) == 1000 + PATIENCE, "it is awake, whoever comes now"


async def test_one_that_does_not_come_up_is_not_waited_for_again_and_again(usage: Usage) -> None:
    for _ in range(5):
        with usage.use():
            clock(usage).now += PATIENCE
    assert awaited(usage, away_since=0) == 1000 + PATIENCE


@pytest.mark.parametrize(("pause", "woken"), [(IDLE, True), (IDLE - 10, True), (IDLE - 11, False)])
async def test_who_comes_after_a_pause(usage: Usage, pause: float, woken: bool) -> None:
    """The last renewal may be 10 s older than the last use."""
    with usage.use():
        clock(usage).now = 1100
    clock(usage).now = 1100 + pause
    with usage.use():
        began = 1100 + pause if woken else 1000
        assert awaited(usage, away_since=0) == began + PATIENCE


async def test_one_that_goes_away_while_it_is_used_did_not_sleep(usage: Usage) -> None:
    with usage.use():
        assert awaited(usage, away_since=1001) == -math.inf


async def test_without_a_lease_nothing_sleeps(usage: Usage) -> None:
    with usage.use():
        assert usage.wake_until(0) == -math.inf
