"""Kernels started ahead of need. A kernel leaves the pool for one session and never comes back."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable

from s1vl_sandbox.kernel import Kernel, KernelStartError, KillCause
from s1vl_sandbox.telemetry import Metrics

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0


class KernelPool:
    """Keeps ``warm`` kernels ready and starts more when sessions wait for one.

    Args:
        start: Starts one kernel, or raises :class:`KernelStartError`.
        warm: How many to keep ready.
        metrics: Where sizes and starts are counted.
    """

    def __init__(self, start: Callable[[], Awaitable[Kernel]], warm: int, metrics: Metrics) -> None:
        self._start = start
        self._warm = warm
        self._metrics = metrics
        # More starts at once than cores only delay the first of them, and the cells that run.
        self._most_starts = max(1, os.cpu_count() or 1)
        self._ready: deque[Kernel] = deque()
        self._waiting: deque[asyncio.Future[Kernel]] = deque()
        self._starting: set[asyncio.Task[None]] = set()
        self._borrowed: set[Kernel] = set()
        self._all: set[Kernel] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        self.last_error: str | None = None
        """Why the last start failed; None when it worked or none has ended yet."""

    @property
    def size(self) -> int:
        """Kernels that are ready."""
        return len(self._ready)

    @property
    def pids(self) -> set[int]:
        """Process ids of every kernel that has not been ended, in a session or not."""
        return {kernel.pid for kernel in self._all}

    def open(self) -> None:
        """Start filling the pool."""
        self._fill()

    async def acquire(self) -> tuple[Kernel, bool]:
        """Take a kernel out of the pool for good.

        Returns:
            The kernel, and whether it was ready at once.

        Raises:
            KernelStartError: No kernel was ready and starting one failed.
        """
        if self._closed:
            raise KernelStartError("the server is shutting down")
        while self._ready:
            kernel = self._ready.popleft()
            if kernel.alive:
                self._fill()
                return kernel, True
            await self.release(kernel, KillCause.DIED)
        future: asyncio.Future[Kernel] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._fill()
        try:
            return await future, False
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._offer(future.result())
            raise

    def borrow(self) -> Kernel | None:
        """Take a ready kernel to run code of the server's own in it; then :meth:`give_back` or :meth:`release` it."""
        if not self._ready:
            return None
        kernel = self._ready.popleft()
        self._borrowed.add(kernel)
        return kernel

    def give_back(self, kernel: Kernel) -> None:
        """Put a borrowed kernel back."""
        self._borrowed.discard(kernel)
        self._offer(kernel)

    async def release(self, kernel: Kernel, cause: KillCause) -> None:
        """End a kernel, whoever had it."""
        first = kernel in self._all
        self._all.discard(kernel)
        self._borrowed.discard(kernel)
        await kernel.kill(cause)
        if first and kernel.killed_for is not None:
            self._metrics.kills.labels(kernel.killed_for.value).inc()
        self._fill()

    async def close(self) -> None:
        """End every kernel, including those of sessions; nothing starts afterwards."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        for task in self._starting:
            task.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for future in self._waiting:
            if not future.done():
                future.set_exception(KernelStartError("the server is shutting down"))
        self._waiting.clear()
        self._ready.clear()
        await asyncio.gather(*(self.release(kernel, KillCause.SHUTDOWN) for kernel in list(self._all)))
        self._metrics.warm.set(0)

    def _fill(self) -> None:
        self._metrics.warm.set(len(self._ready))
        if self._closed or self._retry is not None:
            return
        waiting = sum(not future.done() for future in self._waiting)
        missing = waiting + self._warm - len(self._ready) - len(self._borrowed) - len(self._starting)
        for _ in range(min(missing, self._most_starts - len(self._starting))):
            task = asyncio.create_task(self._start_one())
            self._starting.add(task)
            task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting.discard(task)
        self._fill()

    async def _start_one(self) -> None:
        try:
            kernel = await self._start()
        except (KernelStartError, OSError) as error:
            self._metrics.starts.labels("failed").inc()
            self.last_error = str(error)
            _log.exception("a kernel did not start")
            self._fail_one(error)
            # Whatever the reason, it will hardly be gone in a millisecond.
            self._retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._try_again)
            return
        self._metrics.starts.labels("ok").inc()
        self.last_error = None
        self._all.add(kernel)
        self._offer(kernel)

    def _try_again(self) -> None:
        self._retry = None
        self._fill()

    def _fail_one(self, error: Exception) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(KernelStartError(str(error)))
                return

    def _offer(self, kernel: Kernel) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(kernel)
                return
        self._ready.append(kernel)
        self._metrics.warm.set(len(self._ready))
