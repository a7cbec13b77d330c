"""Who may come in, and when: keys to tenants, and each tenant's concurrency, queue and rate."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from s1vl_orchestrator.config import TenantLimits
from s1vl_orchestrator.errors import ApiError, ErrorCode


class KeyRing:
    """API keys, kept only as digests and compared in constant time."""

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        self._digests = [(tenant, hashlib.sha256(key).digest()) for tenant, key in keys]

    def tenant(self, key: str) -> str | None:
        """The tenant that a key belongs to. Every digest is compared, so that time tells nothing."""
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        found = None
        for tenant, expected in self._digests:
            if hmac.compare_digest(digest, expected):
                found = tenant
        return found


class Admission:
    """One tenant's gate: so many jobs at once, so many waiting in order, so many a minute."""

    def __init__(self, limits: TenantLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits = limits
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._tokens = float(limits.requests_per_minute)
        self._refilled = clock()
        self._job_seconds = 10.0
        self.running = 0

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def update(self, limits: TenantLimits) -> None:
        """Take new limits; running jobs go on, and waiting ones start when there is now room."""
        if limits.requests_per_minute != self._limits.requests_per_minute:
            self._tokens = float(limits.requests_per_minute)
            self._refilled = self._clock()
        self._limits = limits
        self._wake()

    async def enter(self, patience: float) -> None:
        """Wait for a place; pair every return with `leave`.

        Args:
            patience: Most seconds to wait.

        Raises:
            ApiError: `rate_limited` or `queue_full`, with Retry-After, or `deadline_exceeded` after `patience`.
        """
        self._take_token()
        if self.running < self._limits.concurrent_requests and not self._waiting:
            self.running += 1
            return
        if len(self._waiting) >= self._limits.queued_requests:
            raise ApiError(
                ErrorCode.QUEUE_FULL,
                f"{self.running} requests of this tenant are running and {self.waiting} are queued, which is the most.",
                {"running": self.running, "queued": len(self._waiting)},
                retry_after=self._expected_wait(),
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(patience):
                await place
        except TimeoutError as error:
            self._give_up(place)
            raise ApiError(
                ErrorCode.DEADLINE_EXCEEDED, f"The request waited {patience:.0f} s in the tenant's queue."
            ) from error
        except asyncio.CancelledError:
            self._give_up(place)
            raise

    def leave(self, seconds: float) -> None:
        """Give a place back after a job of so many seconds."""
        self.running -= 1
        self._job_seconds += 0.2 * (seconds - self._job_seconds)
        self._wake()

    def _give_up(self, place: asyncio.Future[None]) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
        elif place.done() and not place.cancelled():
            # The place was given in the same moment: pass it on.
            self.running -= 1
            self._wake()

    def _wake(self) -> None:
        while self._waiting and self.running < self._limits.concurrent_requests:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                self.running += 1

    def _take_token(self) -> None:
        rate = self._limits.requests_per_minute
        if not rate:
            return
        now = self._clock()
        self._tokens = min(float(rate), self._tokens + (now - self._refilled) * rate / 60)
        self._refilled = now
        if self._tokens < 1:
            raise ApiError(
                ErrorCode.RATE_LIMITED,
                f"This tenant may send {rate} requests a minute.",
                {"requests_per_minute": rate},
                retry_after=(1 - self._tokens) * 60 / rate,
            )
        self._tokens -= 1

    def _expected_wait(self) -> float:
        jobs_ahead = len(self._waiting) + 1
        return min(300.0, max(1.0, math.ceil(self._job_seconds * jobs_ahead / self._limits.concurrent_requests)))
