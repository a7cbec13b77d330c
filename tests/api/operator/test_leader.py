"""Leader election on a real Lease, with a clock of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s1vl_operator.cluster.kinds import LEASE
from s1vl_operator.leader import LeaderElector, LeadershipLost
from tests.api.operator.conftest import Operator, Space


class Time:
    """Seconds that pass only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Turns(Time):
    """Two candidates that take turns, so that neither's requests take time on the other's clock."""

    def __init__(self) -> None:
        super().__init__()
        self._leader, self._other = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.rounds = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.rounds.release()
        self._other.release()
        await self._leader.acquire()

    async def sleep_of_the_other(self, seconds: float) -> None:
        self._leader.release()
        await self._other.acquire()


def elector(
    operator: Operator, space: Space, identity: str, time: Time, sleep: Callable[[float], Awaitable[None]] | None = None
) -> LeaderElector:
    return LeaderElector(
        operator.cluster,
        namespace=space.namespace,
        name="s1vl-operator",
        identity=identity,
        monotonic=lambda: time.now,
        sleep=sleep or time.sleep,
    )


def lease(space: Space) -> dict[str, Any]:
    spec: dict[str, Any] = space.api.request("GET", LEASE.path(space.namespace, "s1vl-operator"))["spec"]
    return spec


async def test_the_first_leads_and_renews_and_the_second_stands_by(space: Space, operator: Operator) -> None:
    time = Turns()
    first = elector(operator, space, "a", time)
    second = elector(operator, space, "b", time, time.sleep_of_the_other)
    await first.acquire()
    held = lease(space)
    assert (held["holderIdentity"], held["leaseDurationSeconds"], held["leaseTransitions"]) == ("a", 10, 0)
    holding = asyncio.create_task(first.hold())
    standing_by = asyncio.create_task(second.acquire())
    async with asyncio.timeout(60):
        for _ in range(30):
            await time.rounds.acquire()
    assert time.now >= 1060
    assert not holding.done()
    assert not standing_by.done()
    renewed = lease(space)
    assert renewed["holderIdentity"] == "a"
    assert renewed["acquireTime"] == held["acquireTime"]
    assert renewed["renewTime"] > held["renewTime"]
    for task in (holding, standing_by):
        task.cancel()
    await asyncio.wait([holding, standing_by])


async def test_a_lease_that_is_released_is_taken_at_once(space: Space, operator: Operator) -> None:
    time = Time()
    first, second = elector(operator, space, "a", time), elector(operator, space, "b", time)
    await first.acquire()
    await second.release()
    assert lease(space)["holderIdentity"] == "a", "only the holder releases"
    await first.release()
    assert not lease(space).get("holderIdentity")
    await second.acquire()
    assert time.now == 1000.0, "without waiting"
    assert lease(space)["leaseTransitions"] == 1


async def test_a_lease_that_is_no_longer_renewed_is_taken_after_its_time(space: Space, operator: Operator) -> None:
    time = Time()
    await elector(operator, space, "a", time).acquire()
    await elector(operator, space, "b", time).acquire()
    assert 1010 <= time.now <= 1012
    assert lease(space)["holderIdentity"] == "b"


async def test_a_leader_that_lost_its_lease_notices(space: Space, operator: Operator) -> None:
    time = Time()
    first = elector(operator, space, "a", time)
    await first.acquire()
    path = LEASE.path(space.namespace, "s1vl-operator")
    found = space.api.request("GET", path)
    space.api.request("PUT", path, {**found, "spec": {**found["spec"], "holderIdentity": "b"}})
    with pytest.raises(LeadershipLost, match="b holds"):
        await first.hold()


async def test_of_many_candidates_one_wins(space: Space, operator: Operator) -> None:
    time = Time()
    candidates = [asyncio.create_task(elector(operator, space, f"c{n}", time).acquire()) for n in range(5)]
    done, waiting = await asyncio.wait(candidates, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert lease(space)["leaseTransitions"] == 0
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
