"""A tenant's Lease: how the operator hears that the sandbox is used, and must not sleep."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator

from s1vl_orchestrator.telemetry import Metrics, tenant_name

log = logging.getLogger(__name__)

RENEW_SECONDS = 10.0
RETRY_SECONDS = 1.0

Renew = Callable[[str], Awaitable[None]]
"""Renews the Lease of this name. Raises an Exception if that fails."""


class Usage:
    """Who uses a tenant's sandbox; renews its Lease at once when somebody comes, and as long as anybody is there.

    Times are `time.monotonic()` seconds.
    """

    def __init__(
        self, tenant: str, renew: Renew, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tenant = tenant
        self._renew = renew
        self._metrics = metrics
        self._clock = clock
        self._lease = ""
        self._idle_seconds = 0.0
        self._patience = 0.0
        self._users = 0
        self._woke_at = -math.inf
        self._used_at = -math.inf
        self._renewed_at = -math.inf
        self._problem = ""
        self._used = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(self, lease: str, idle_seconds: float, patience: float) -> None:
        """Take a new configuration.

        Args:
            lease: Its name; "" for a sandbox that never sleeps.
            idle_seconds: After which it sleeps.
            patience: Seconds that a request may wait for it to wake.
        """
        if lease != self._lease:
            self._renewed_at = -math.inf
        self._lease, self._idle_seconds, self._patience = lease, idle_seconds, patience
        if lease and self._task is None:
            self._task = asyncio.create_task(self._keep_renewing(), name=f"lease-{self._tenant}")

    def wake_until(self, away_since: float) -> float:
        """Until when a sandbox is to be waited for that is away since then, because it may have slept.

        So a sandbox that does not come up holds requests for as long as one may take, and not those that come later.
        """
        return self._woke_at + self._patience if self._lease and self._woke_at >= away_since else -math.inf

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Use the sandbox, or wait for it."""
        now = self._clock()
        # The last renewal is older than the last use.
        if not self._users and now - self._used_at >= self._idle_seconds - self._every:
            self._woke_at = now
        self._users += 1
        self._used.set()
        try:
            yield
        finally:
            self._users -= 1
            self._used_at = self._clock()

    async def close(self) -> None:
        """Renew no more."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def _every(self) -> float:
        return min(RENEW_SECONDS, self._idle_seconds / 3)

    async def _keep_renewing(self) -> None:
        tenant_name.set(self._tenant)
        while True:
            await self._used.wait()
            self._used.clear()
            while True:
                if self._lease and self._clock() >= self._renewed_at + self._every:
                    await self._try()
                if not self._users:
                    break
                await asyncio.sleep(max(RETRY_SECONDS, self._renewed_at + self._every - self._clock()))

    async def _try(self) -> None:
        """Renew the Lease. A failure is told and tried again: it must not cost a request."""
        lease, now = self._lease, self._clock()
        try:
            await self._renew(lease)
        except Exception as error:  # Also of a defect: the task must go on.
            self._metrics.lease_failures.inc()
            if str(error) != self._problem:
                self._problem = str(error)
                log.exception("the Lease %s cannot be renewed, so that the sandbox may fall asleep", lease)
        else:
            self._problem = ""
            if lease == self._lease:
                self._renewed_at = now
