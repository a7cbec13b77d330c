"""What a candidate does when the API server does not answer."""

from __future__ import annotations

import asyncio
import re
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
    "error",
    [
        Unreachable("timeout"),
        ApiError(503, "ServiceUnavailable", "no"),
        ApiError(403, "Forbidden", "no"),
        ApiError(409, "Conflict", "no"),
    ],
)
async def test_a_leader_gives_up_before_its_lease_is_free(error: Exception) -> None:
    leases, time = Leases(), Time()
    leader = candidate(leases, time)
    await leader.acquire()
    assert leader.leads()
    assert leader.problem() == ""
    leases.error = error
    asked = leases.requests
    with pytest.raises(LeadershipLost, match=re.escape(f"not renewed for 7 s: {error}")):
        await leader.hold()
    assert time.now == Timing().deadline < Timing().duration
    assert leases.requests - asked >= 4
    assert not leader.leads()
    assert leader.problem() == "", "not for so short a time"
    await time.sleep(Timing().duration)
    assert str(error) in leader.problem()


async def test_a_leader_that_stood_still_knows_that_it_no_longer_leads() -> None:
    time = Time()
    leader = candidate(Leases(), time)
    assert not leader.leads()
    assert "not been asked" in leader.problem()
    await leader.acquire()
    time.now += Timing().deadline
    assert not leader.leads(), "before anybody has looked at the lease"
    with pytest.raises(LeadershipLost):
        await leader.hold()


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
    # Two renewals that failed are repeated sooner than the next would have been due.
    assert time.now == 2 + 1 + 1 + 1 + 2 + 2 + 1 + 2
    assert not leader.leads()


async def test_it_leads_again_when_its_lease_is_still_its_own() -> None:
    leases, time = Leases(), Time()
    leader = candidate(leases, time)
    await leader.acquire()
    leases.error = Unreachable("timeout")
    with pytest.raises(LeadershipLost):
        await leader.hold()

    def answer() -> None:
        leases.error = None

    time.steps = [lambda: None] * 60 + [answer]
    began = time.now
    await leader.acquire()
    assert leader.leads()
    assert time.now == began + 61, "at once, nobody else had it"


async def test_a_candidate_waits_for_the_server(caplog: pytest.LogCaptureFixture) -> None:
    leases, time = Leases(), Time()
    leases.error = Unreachable("timeout")

    def answer() -> None:
        leases.error = None

    time.steps = [lambda: None, lambda: None, answer]
    await candidate(leases, time).acquire()
    assert time.now == 3
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "Cannot get the lease: timeout"
    ], "said once"


async def test_a_lease_that_cannot_be_released_runs_out() -> None:
    leases, time = Leases(), Time()
    leader = candidate(leases, time)
    await leader.acquire()
    leases.error = Unreachable("timeout")
    await leader.release()
    assert not leader.leads()
    asked = leases.requests
    await leader.release()
    assert leases.requests == asked, "who does not lead has nothing to release"
