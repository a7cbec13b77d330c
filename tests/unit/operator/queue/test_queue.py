"""The queue, with a clock that only moves when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from s1vl_operator.queue import WorkQueue


@dataclass
class FakeTimer:
    due: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeClock:
    now: float = 0.0
    timers: list[FakeTimer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self.now + delay, callback)
        self.timers.append(timer)
        return timer

    def pending(self) -> list[float]:
        return sorted(timer.due - self.now for timer in self.timers if not timer.cancelled)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if not timer.cancelled and timer.due <= self.now]
        self.timers = [timer for timer in self.timers if not timer.cancelled and timer.due > self.now]
        for timer in due:
            timer.callback()


async def settle() -> None:
    """Let every task run until all of them wait."""
    for _ in range(20):
        await asyncio.sleep(0)


class Work:
    """Work that waits for `go` where a test wants to look at it in the middle, and does what `plan` says."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.running = 0
        self.most = 0
        self.go = asyncio.Event()
        self.go.set()
        self.plan: dict[str, list[float | Exception | None]] = {}

    async def __call__(self, key: str) -> float | None:
        self.runs.append(key)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        finally:
            self.running -= 1
        outcome = self.plan[key].pop(0) if self.plan.get(key) else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def queue(work: Work, clock: FakeClock, workers: int = 2) -> WorkQueue[str]:
    made = WorkQueue(work, workers=workers, clock=clock, first_delay=1, longest_delay=8, jitter=lambda: 1.0)
    made.start()
    return made


async def test_a_key_that_waits_is_worked_on_once() -> None:
    work, clock = Work(), FakeClock()
    q = queue(work, clock)
    for _ in range(5):
        q.add("a")
    await settle()
    assert work.runs == ["a"]
    await q.close(1)


async def test_a_key_is_never_worked_on_twice_at_once_and_runs_again_when_it_was_added_meanwhile() -> None:
    work, clock = Work(), FakeClock()
    work.go.clear()
    q = queue(work, clock, workers=4)
    q.add("a")
    await settle()
    q.add("a")
    q.add("a")
    await settle()
    assert (work.runs, q.busy, q.depth) == (["a"], 1, 0)
    work.go.set()
    await settle()
    assert (work.runs, work.most) == (["a", "a"], 1)
    await q.close(1)


async def test_different_keys_run_side_by_side_up_to_the_number_of_workers() -> None:
    work, clock = Work(), FakeClock()
    work.go.clear()
    q = queue(work, clock, workers=2)
    for key in "abc":
        q.add(key)
    await settle()
    assert (q.busy, q.depth) == (2, 1)
    work.go.set()
    await settle()
    assert sorted(work.runs) == ["a", "b", "c"]
    await q.close(1)


async def test_delays_after_failures_double_up_to_the_longest_and_start_anew_after_a_success() -> None:
    work, clock = Work(), FakeClock()
    work.plan["a"] = [RuntimeError("no")] * 6 + [None, RuntimeError("again")]
    q = queue(work, clock)
    q.add("a")
    delays = []
    for _ in range(6):
        await settle()
        delays += clock.pending()
        clock.advance(clock.pending()[0])
    await settle()
    assert delays == [1, 2, 4, 8, 8, 8]
    assert (len(work.runs), clock.pending()) == (7, [])
    q.add("a")
    await settle()
    assert clock.pending() == [1]
    await q.close(1)


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
async def test_jitter_spreads_a_delay_between_half_and_the_whole(jitter: float, delay: float) -> None:
    work, clock = Work(), FakeClock()
    work.plan["a"] = [RuntimeError("no")]
    q = WorkQueue(work, workers=1, clock=clock, first_delay=1, jitter=lambda: jitter)
    q.start()
    q.add("a")
    await settle()
    assert clock.pending() == [delay]
    await q.close(1)


async def test_a_failing_key_is_not_woken_by_its_own_events_but_by_somebody_who_changes_what_is_wanted() -> None:
    work, clock = Work(), FakeClock()
    work.plan["a"] = [RuntimeError("no"), RuntimeError("no"), None]
    q = queue(work, clock)
    q.add("a")
    await settle()
    q.add("a")
    await settle()
    assert (work.runs, clock.pending()) == (["a"], [1])
    q.add("a", urgent=True)
    await settle()
    assert (work.runs, clock.pending()) == (["a", "a"], [1]), "forgotten failures: the delay starts anew"
    await q.close(1)


async def test_a_key_asks_for_another_look_later_and_an_event_before_that_is_not_doubled() -> None:
    work, clock = Work(), FakeClock()
    work.plan["a"] = [30.0, None]
    q = queue(work, clock)
    q.add("a")
    await settle()
    assert clock.pending() == [30]
    clock.advance(10)
    q.add("a")
    await settle()
    assert (work.runs, clock.pending()) == (["a", "a"], [])
    clock.advance(100)
    await settle()
    assert work.runs == ["a", "a"]
    await q.close(1)


async def test_one_key_that_fails_does_not_keep_others_waiting() -> None:
    work, clock = Work(), FakeClock()
    work.plan["bad"] = [RuntimeError("no")] * 100
    q = queue(work, clock, workers=1)
    q.add("bad")
    q.add("good")
    await settle()
    assert work.runs == ["bad", "good"]
    assert q.alive()
    await q.close(1)


async def test_closing_finishes_what_runs_and_drops_what_waits() -> None:
    work, clock = Work(), FakeClock()
    work.go.clear()
    work.plan["a"] = [5.0]
    q = queue(work, clock, workers=1)
    q.add("a")
    q.add("b")
    await settle()
    closing = asyncio.create_task(q.close(60))
    await settle()
    assert not closing.done()
    q.add("c")
    work.go.set()
    await closing
    assert (work.runs, work.running, clock.pending()) == (["a"], 0, [])
    assert not q.alive()


@pytest.mark.parametrize("grace", [0.01, 0])
async def test_closing_does_not_wait_for_ever(grace: float) -> None:
    work, clock = Work(), FakeClock()
    work.go.clear()
    q = queue(work, clock, workers=2)
    q.add("a")
    await settle()
    await q.close(grace)
    assert (work.runs, work.running) == (["a"], 0)


async def test_the_age_of_the_oldest_run_is_known() -> None:
    work, clock = Work(), FakeClock()
    work.go.clear()
    q = queue(work, clock)
    assert q.oldest() == 0
    q.add("a")
    await settle()
    clock.now += 7
    assert q.oldest() == 7
    work.go.set()
    await settle()
    assert q.oldest() == 0
    await q.close(1)
