"""Readiness that runs code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from s1vl_sandbox.cells import CellStatus, KernelStartError, KillCause, WorkingDirectoryError
from s1vl_sandbox.grants import SessionGrants
from s1vl_sandbox.pool import KernelPool
from s1vl_sandbox.sessions import Sessions

_PROBE_TIMEOUT_SECONDS = 5.0
# A server whose cells end well is ready; and probes of several parties must not pile up in front of the cells.
_RECENT_SUCCESS_SECONDS = 10.0


@dataclass(frozen=True)
class Verdict:
    """Whether code can be run, and if not, why."""

    ready: bool
    reason: str


class Readiness:
    """Answers whether a cell would run now: one has just ended well, or one does now in a kernel made for that.

    Args:
        pool: Where kernels come from.
        sessions: Whose cells are evidence.
        problem: Why there is no host for kernels; None if there is one.
        clock: Seconds.
    """

    def __init__(
        self,
        pool: KernelPool,
        sessions: Sessions,
        problem: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._sessions = sessions
        self._problem = problem
        self._clock = clock
        self._lock = asyncio.Lock()
        self._succeeded_at = float("-inf")

    def forget(self) -> None:
        """Count nothing that was seen before: the host is another one now."""
        self._succeeded_at = float("-inf")
        self._sessions.forget_success()

    async def check(self) -> Verdict:
        """Return the verdict, resting on a cell that ended at most ten seconds ago."""
        async with self._lock:
            problem = self._problem()
            if problem is not None:
                return Verdict(False, problem)
            if self._sessions.now() - self._sessions.last_success < _RECENT_SUCCESS_SECONDS:
                return Verdict(True, "a cell ended well within the last 10 s")
            if self._clock() - self._succeeded_at < _RECENT_SUCCESS_SECONDS:
                return Verdict(True, "a kernel ran 1 + 1 within the last 10 s")
            return await self._probe()

    async def _probe(self) -> Verdict:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_SECONDS):
                kernel = await self._pool.acquire(SessionGrants())
        except (KernelStartError, WorkingDirectoryError) as error:
            return Verdict(False, f"kernels do not start: {error}")
        except TimeoutError:
            return Verdict(False, f"no kernel was ready within {_PROBE_TIMEOUT_SECONDS:.0f} s")
        result = await kernel.run("1 + 1", _PROBE_TIMEOUT_SECONDS, silent=True)
        ok = result.status is CellStatus.OK
        await self._pool.release(kernel, KillCause.CLOSED if ok else KillCause.UNHEALTHY)
        if not ok:
            return Verdict(False, f"a fresh kernel answered {result.status.value} to 1 + 1")
        self._succeeded_at = self._clock()
        return Verdict(True, "a kernel ran 1 + 1")
