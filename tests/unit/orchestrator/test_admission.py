"""Concurrency, queue, rate and keys."""

from __future__ import annotations

import asyncio

import pytest

from s1vl_orchestrator.admission import Admission, KeyRing
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

    async def job(number: int) -> None:
        await admission.enter(60)
        order.append(number)

    await job(0)
    tasks = [asyncio.create_task(job(number)) for number in (1, 2)]
    await settle()
    assert (admission.running, admission.waiting) == (1, 2)
    with pytest.raises(ApiError) as refused:
        await admission.enter(60)
    assert refused.value.code is ErrorCode.QUEUE_FULL
    assert int(refused.value.headers()["Retry-After"]) >= 1
    for expected in ([0, 1], [0, 1, 2]):
        admission.leave(1)
        await settle()
        assert order == expected
    admission.leave(1)
    await asyncio.gather(*tasks)
    assert (admission.running, admission.waiting) == (0, 0)


async def test_who_gives_up_gives_the_place_back() -> None:
    admission = Admission(limits())
    await admission.enter(60)
    waiting = asyncio.create_task(admission.enter(60))
    await settle()
    waiting.cancel()
    await settle()
    assert admission.waiting == 0
    # Cancelled in the very moment in which its place comes.
    late, next_one = (asyncio.create_task(admission.enter(60)) for _ in range(2))
    await settle()
    admission.leave(1)
    late.cancel()
    await next_one
    assert (admission.running, admission.waiting) == (1, 0)


async def test_waiting_is_bounded() -> None:
    admission = Admission(limits())
    await admission.enter(60)
    with pytest.raises(ApiError) as late:
        await admission.enter(0.01)
    assert late.value.code is ErrorCode.DEADLINE_EXCEEDED
    assert admission.waiting == 0


async def test_the_rate_is_a_bucket() -> None:
    now = 0.0
    admission = Admission(limits(running=100, rate=6), clock=lambda: now)
    for _ in range(6):
        await admission.enter(1)
    with pytest.raises(ApiError) as refused:
        await admission.enter(1)
    assert refused.value.code is ErrorCode.RATE_LIMITED
    assert refused.value.headers()["Retry-After"] == "10"
    now = 10.0
    await admission.enter(1)


async def test_new_limits_let_waiting_ones_in() -> None:
    admission = Admission(limits())
    await admission.enter(60)
    waiting = asyncio.create_task(admission.enter(60))
    await settle()
    admission.update(limits(running=2))
    await waiting
    assert admission.running == 2


def test_keys() -> None:
    ring = KeyRing([("chem", b"a"), ("bio", b"b")])
    assert [ring.tenant(key) for key in ("a", "b", "", "c", "a ", "é\udcff")] == ["chem", "bio", None, None, None, None]
    assert "b'a'" not in repr(vars(ring))
