"""Leader election on a real Lease, with a clock of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from s1vl_operator.cluster.kinds import LEASE
from s1vl_operator.leader import LeaderElector, LeadershipLost
from tests.api.operator.conftest import Operator, Space


@dataclass
class Time:
    """Seconds that pass only by sleeping; `then` is called in every sleep."""

    now: float = 1000.0
    then: Callable[[], None] = lambda: None

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.then()
        await asyncio.sleep(0)


def elector(operator: Operator, space: Space, identity: str, time: Time) -> LeaderElector:
    return LeaderElector(
        operator.cluster,
        namespace=space.namespace,
        name="s1vl-operator",
        identity=identity,
        monotonic=lambda: time.now,
        sleep=time.sleep,
    )


def lease(space: Space) -> dict[str, Any]:
    spec: dict[str, Any] = space.api.request("GET", LEASE.path(space.namespace, "s1vl-operator"))["spec"]
    return spec


async def test_the_first_leads_and_renews_and_the_second_stands_by(space: Space, operator: Operator) -> None:
    time = Time()
    first, second = elector(operator, space, "a", time), elector(operator, space, "b", time)
    await first.acquire()
    held = lease(space)
    assert (held["holderIdentity"], held["leaseDurationSeconds"], held["leaseTransitions"]) == ("a", 15, 0)
    holding = asyncio.create_task(first.hold())
    standing_by = asyncio.create_task(second.acquire())
    started = time.now
    passed = asyncio.Event()
    time.then = lambda: passed.set() if time.now > started + 60 else None
    await passed.wait()
    assert not holding.done()
    assert not standing_by.done()
    renewed = lease(space)
    assert renewed["holderIdentity"] == "a"
    assert renewed["acquireTime"] == held["acquireTime"]
    assert renewed["renewTime"] > held["renewTime"]
    for task in (holding, standing_by):
        task.cancel()


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
    assert 1015 <= time.now <= 1018
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
