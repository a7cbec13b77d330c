"""Readiness that runs code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from s1vl_sandbox.kernel import CellStatus, KillCause
from s1vl_sandbox.pool import KernelPool
from s1vl_sandbox.sessions import Sessions

# Probes of several parties must not pile up in front of the cells.
_VALID_SECONDS = 2.0
_PROBE_TIMEOUT_SECONDS = 5.0
# A server whose cells end well is ready, even when the load leaves it no warm kernel at this moment.
_RECENT_SUCCESS_SECONDS = 10.0


@dataclass(frozen=True)
class Verdict:
    """Whether code can be run, and if not, why."""

    ready: bool
    reason: str


class Readiness:
    """Answers whether a cell would run now, by running one in a kernel of the pool that no session has used."""

    def __init__(self, pool: KernelPool, sessions: Sessions, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._sessions = sessions
        self._clock = clock
        self._lock = asyncio.Lock()
        self._verdict = Verdict(False, "the first kernel is starting")
        self._checked_at = float("-inf")

    async def check(self) -> Verdict:
        """Return the verdict, at most two seconds old."""
        async with self._lock:
            if self._clock() - self._checked_at > _VALID_SECONDS:
                self._verdict = await self._check()
                # A verdict "no" is not kept: at start-up every second counts.
                self._checked_at = self._clock() if self._verdict.ready else float("-inf")
            return self._verdict

    async def _check(self) -> Verdict:
        kernel = self._pool.borrow()
        if kernel is None:
            if self._sessions.now() - self._sessions.last_success < _RECENT_SUCCESS_SECONDS:
                return Verdict(True, "a cell ended well within the last 10 s")
            if self._pool.last_error is not None:
                return Verdict(False, f"kernels do not start: {self._pool.last_error}")
            return Verdict(False, "a kernel is starting")
        result = await kernel.run("1 + 1", _PROBE_TIMEOUT_SECONDS, silent=True)
        if result.status is not CellStatus.OK:
            await self._pool.release(kernel, KillCause.UNHEALTHY)
            return Verdict(False, f"a warm kernel answered {result.status.value} to 1 + 1")
        self._pool.give_back(kernel)
        return Verdict(True, "a warm kernel ran 1 + 1")
