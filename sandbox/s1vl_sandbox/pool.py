"""Kernels for sessions. A kernel belongs to one session and never comes back; the host keeps the warm ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from s1vl_sandbox.cells import KernelStartError, KillCause
from s1vl_sandbox.grants import SessionGrants
from s1vl_sandbox.kernel import Kernel
from s1vl_sandbox.telemetry import Metrics


class KernelPool:
    """Gets kernels from the host and sees to it that each is ended.

    Args:
        start: Starts one kernel, or raises :class:`KernelStartError`.
        metrics: Where starts, their times and ends are counted.
    """

    def __init__(self, start: Callable[[SessionGrants], Awaitable[Kernel]], metrics: Metrics) -> None:
        self._start = start
        self._metrics = metrics
        self._all: set[Kernel] = set()
        self._closed = False
        self.size = 0
        """Processes that only wait for what a session is granted."""
        self.last_error: str | None = None
        """Why the last start failed; None when it worked or none has ended yet."""

    @property
    def pids(self) -> set[int]:
        """Process ids, as the host sees them, of every kernel that has not been ended."""
        return {kernel.pid for kernel in self._all}

    async def acquire(self, grants: SessionGrants) -> Kernel:
        """Get a kernel that can touch what is granted.

        Raises:
            KernelStartError: None could be started.
            WorkingDirectoryError: It may not use the granted working directory.
        """
        if self._closed:
            raise KernelStartError("the server is shutting down")
        began = time.monotonic()
        try:
            kernel = await self._start(grants)
        except (KernelStartError, OSError) as error:
            self._metrics.starts.labels("failed").inc()
            self.last_error = str(error)
            raise KernelStartError(str(error)) from error
        self._metrics.starts.labels("ok").inc()
        self._metrics.acquire.labels("warm" if kernel.warm else "cold").observe(time.monotonic() - began)
        self.last_error = None
        self._all.add(kernel)
        return kernel

    async def release(self, kernel: Kernel, cause: KillCause) -> None:
        """End a kernel for ``cause``, or for what has ended it already."""
        first = kernel in self._all
        self._all.discard(kernel)
        await kernel.kill(cause)
        if first and kernel.killed_for is not None:
            self._metrics.kills.labels(kernel.killed_for.value).inc()

    def resize(self, warm: int) -> None:
        """Take note of how many kernels wait."""
        self.size = warm
        self._metrics.warm.set(warm)

    async def close(self) -> None:
        """End every kernel; none starts afterwards."""
        self._closed = True
        await asyncio.gather(*(self.release(kernel, KillCause.SHUTDOWN) for kernel in list(self._all)))
