"""What a candidate does when the API server does not answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from s1vl_operator.cluster.port import ApiError, Unreachable
from s1vl_operator.leader import LeaderElector, LeadershipLost, Timing


class Leases:
    """One Lease; `error` is what every request meets."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.error: Exception | None = None
        self.requests = 0

    async def read(self, *_: Any) -> dict[str, Any] | None:
        self.requests += 1
        if self.error:
            raise self.error
        return self.lease

    async def create(self, lease: dict[str, Any]) -> dict[str, Any]:
        return await self.replace(lease)

    async def replace(self, lease: dict[str, Any]) -> dict[str, Any]:
        if self.error:
            raise self.error
        version = str(self.requests)
        self.lease = {**lease, "metadata": {**lease["metadata"], "resourceVersion": version}}
        return self.lease


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.steps: list[Any] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.steps:
            self.steps.pop(0)()
        await asyncio.sleep(0)


def candidate(leases: Leases, time: Time) -> LeaderElector:
    return LeaderElector(
        leases,  # type: ignore[arg-type]
        namespace="n",
        name="l",
        identity="a",
        monotonic=lambda: time.now,
        sleep=time.sleep,
        timing=Timing(),
    )


@pytest.mark.parametrize(
    "error", [Unreachable("timeout"), ApiError(503, "ServiceUnavailable", "no"), ApiError(403, "Forbidden", "no")]
)
async def test_a_leader_gives_up_before_its_lease_is_free(error: Exception) -> None:
    leases, time = Leases(), Time()
    leader = candidate(leases, time)
    await leader.acquire()
    leases.error = error
    with pytest.raises(LeadershipLost, match="not renewed for 10 s"):
        await leader.hold()
    assert 10 <= time.now < 15


async def test_a_short_silence_is_survived() -> None:
    leases, time = Leases(), Time()
    leader = candidate(leases, time)
    await leader.acquire()

    def silence() -> None:
        leases.error = Unreachable("timeout")

    def answer() -> None:
        leases.error = None

    def stranger() -> None:
        assert leases.lease
        leases.lease["spec"]["holderIdentity"] = "b"

    time.steps = [silence, lambda: None, lambda: None, answer, lambda: None, silence, answer, stranger]
    with pytest.raises(LeadershipLost, match="b holds"):
        await leader.hold()
    assert time.now == 16


async def test_a_candidate_waits_for_the_server() -> None:
    leases, time = Leases(), Time()
    leases.error = Unreachable("timeout")

    def answer() -> None:
        leases.error = None

    time.steps = [lambda: None, lambda: None, answer]
    await candidate(leases, time).acquire()
    assert time.now == 6


async def test_a_lease_that_cannot_be_released_runs_out() -> None:
    leases, time = Leases(), Time()
    leader = candidate(leases, time)
    await leader.acquire()
    leases.error = Unreachable("timeout")
    await leader.release()
