"""A work queue of keys: each at most once waiting, each by at most one worker, failures with growing delays.

The order of things for a key: `add` makes it wait; a worker takes it; an `add` meanwhile makes it run once more
afterwards. A run that raises is repeated after a delay that doubles; a run that returns a number is repeated after so
many seconds.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Timer(Protocol):
    """Something to happen later."""

    def cancel(self) -> None:
        """Let it not happen."""


class Clock(Protocol):
    """The part of an asyncio event loop that tells and waits for time; a fake one makes tests instant."""

    def time(self) -> float:
        """Seconds since some fixed moment."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call `callback` after `delay` seconds."""


class WorkQueue(Generic[K]):
    """Runs `work(key)` for every key that was added, with `workers` keys at once.

    Args:
        work: does everything that there is to do for a key; returns the seconds after which to look again, or None.
        workers: number of keys worked on at once.
        clock: the running event loop, or a fake one.
        first_delay: seconds before the first repetition of a failed run; doubled each time.
        longest_delay: seconds that it is never above.
        jitter: a number in [0, 1) that spreads the delays between half and the whole of them.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        workers: int,
        clock: Clock,
        first_delay: float = 0.5,
        longest_delay: float = 60.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._work = work
        self._workers = workers
        self._clock = clock
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._jitter = jitter
        self._waiting: deque[K] = deque()
        self._queued: set[K] = set()
        self._running: dict[K, float] = {}
        self._dirty: set[K] = set()
        self._timers: dict[K, Timer] = {}
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._queued)

    @property
    def busy(self) -> int:
        """Keys that are being worked on."""
        return len(self._running)

    def oldest(self) -> float:
        """Seconds since the longest of the running runs began; 0 when none runs."""
        return max((self._clock.time() - began for began in self._running.values()), default=0.0)

    def alive(self) -> bool:
        """Whether every worker that was started is still there."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def start(self) -> None:
        """Start the workers, as tasks of the running event loop."""
        self._tasks = [asyncio.create_task(self._serve(), name=f"worker-{n}") for n in range(self._workers)]

    def add(self, key: K, *, urgent: bool = False) -> None:
        """Let `key` be worked on soon.

        A key that waits after a failure goes on waiting, or its own writes would wake it without end. `urgent`
        (somebody changed what is wanted) forgets the failures and ends that wait.
        """
        if self._closed:
            return
        if urgent:
            self._failures.pop(key, None)
        elif key in self._failures and key in self._timers:
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._running:
            self._dirty.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.append(key)
            self._wake.release()

    async def close(self, grace: float) -> None:
        """Take nothing new, let the running runs finish for at most `grace` seconds, and end the workers.

        With 0 the running runs are broken off at once.
        """
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        self._queued.clear()
        self._dirty.clear()
        for _ in self._tasks:
            self._wake.release()
        if not self._tasks:
            return
        if grace > 0:
            await asyncio.wait(self._tasks, timeout=grace)
        if self._running:
            logger.warning("%d runs were broken off after %.0f s", len(self._running), grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _serve(self) -> None:
        while True:
            await self._wake.acquire()
            if self._closed:
                return
            key = self._waiting.popleft()
            self._queued.discard(key)
            await self._run(key)

    async def _run(self, key: K) -> None:
        self._running[key] = self._clock.time()
        again: float | None = None
        try:
            again = await self._work(key)
        except Exception as error:
            again = self._failed(key, error)
            self._dirty.discard(key)
        else:
            self._failures.pop(key, None)
        finally:
            del self._running[key]
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)
        elif again is not None and not self._closed:
            self._timers[key] = self._clock.call_later(again, lambda: self._due(key))

    def _failed(self, key: K, error: Exception) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(self._first_delay * 2.0 ** min(failures - 1, 30), self._longest_delay)
        delay *= 0.5 + self._jitter() / 2
        logger.warning("Run %d for %s failed, next in %.1f s: %s", failures, key, delay, error, exc_info=error)
        return delay

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
