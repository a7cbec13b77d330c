"""Concurrency, queue, rate and keys."""

from __future__ import annotations

import asyncio

import pytest

from s1vl_orchestrator.admission import MAX_WAITING_BYTES, Admission, KeyRing
from s1vl_orchestrator.config import TenantLimits
from s1vl_orchestrator.errors import ApiError, ErrorCode


def limits(running: int = 1, queued: int = 2, rate: int = 0) -> TenantLimits:
    return TenantLimits(concurrent_requests=running, queued_requests=queued, requests_per_minute=rate)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_in_order_and_no_more_than_allowed() -> None:
    admission = Admission(limits())
    order: list[int] = []
    done = [asyncio.Event() for _ in range(3)]

    async def job(number: int) -> None:
        with admission.place() as place:
            await place.wait(60)
            order.append(number)
            await done[number].wait()

    tasks = []
    for number in range(3):
        tasks.append(asyncio.create_task(job(number)))
        await settle()
    assert (admission.running, admission.waiting) == (1, 2)
    with pytest.raises(ApiError) as refused, admission.place():
        pass
    assert refused.value.code is ErrorCode.QUEUE_FULL
    assert int(refused.value.headers()["Retry-After"]) >= 1
    for number in range(3):
        assert order == list(range(number + 1))
        done[number].set()
        await settle()
    await asyncio.gather(*tasks)
    assert (admission.running, admission.waiting) == (0, 0)


async def test_who_gives_up_gives_the_place_back() -> None:
    admission = Admission(limits())

    async def job() -> None:
        with admission.place() as place:
            await place.wait(60)
            await asyncio.Event().wait()

    with admission.place():
        waiting = asyncio.create_task(job())
        await settle()
        assert admission.waiting == 1
        waiting.cancel()
        await settle()
        assert admission.waiting == 0
        late, next_one = (asyncio.create_task(job()) for _ in range(2))
        await settle()
    # Cancelled in the very moment in which its place comes.
    late.cancel()
    await settle()
    assert (admission.running, admission.waiting) == (1, 0)
    next_one.cancel()
    await settle()
    assert (admission.running, admission.waiting) == (0, 0)


async def test_waiting_is_bounded() -> None:
    admission = Admission(limits())
    with admission.place():
        with pytest.raises(ApiError) as late, admission.place() as place:
            await place.wait(0.01)
        assert late.value.code is ErrorCode.DEADLINE_EXCEEDED
        assert admission.waiting == 0


async def test_the_time_in_which_the_body_came_counts() -> None:
    now = 0.0
    admission = Admission(limits(), clock=lambda: now)
    with admission.place(), admission.place() as place:
        now = 100.0
        with pytest.raises(ApiError):
            await place.wait(99)


async def test_waiting_bodies_are_bounded_and_running_ones_are_not() -> None:
    admission = Admission(limits(running=1, queued=3))
    with admission.place() as running:
        running.hold(2 * MAX_WAITING_BYTES)
        with admission.place() as first:
            first.hold(MAX_WAITING_BYTES - 1)
            with pytest.raises(ApiError) as refused, admission.place() as second:
                second.hold(2)
            assert refused.value.code is ErrorCode.QUEUE_FULL
            assert refused.value.retry_after
            # What was refused counts no more.
            first.hold(1)
        with admission.place() as third:
            third.hold(MAX_WAITING_BYTES)
            admission.update(limits(running=2))
            assert third.given
            with admission.place() as fourth:
                fourth.hold(MAX_WAITING_BYTES)
    assert (admission.running, admission.waiting) == (0, 0)


async def test_the_rate_is_a_bucket() -> None:
    now = 0.0
    admission = Admission(limits(running=100, rate=6), clock=lambda: now)
    for _ in range(6):
        with admission.place() as place:
            assert place.given
    with pytest.raises(ApiError) as refused, admission.place():
        pass
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert refused.value.headers()["Retry-After"] == "10"
    now = 10.0
    with admission.place() as place:
        assert place.given


async def test_new_limits_let_waiting_ones_in() -> None:
    admission = Admission(limits())
    with admission.place(), admission.place() as place:
        assert not place.given
        admission.update(limits(running=2))
        await place.wait(60)
        assert admission.running == 2


def test_keys() -> None:
    ring = KeyRing([("chem", b"a"), ("bio", b"b")])
    assert [ring.tenant(key) for key in ("a", "b", "", "c", "a ", "é\udcff")] == ["chem", "bio", None, None, None, None]
    assert "b'a'" not in repr(vars(ring))
