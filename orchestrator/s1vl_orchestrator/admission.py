"""Who may come in, and when: keys to tenants, and each tenant's concurrency, queue and rate."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from s1vl_orchestrator.config import TenantLimits
from s1vl_orchestrator.errors import ApiError, ErrorCode


def keys_of(secret: bytes | None) -> list[bytes]:
    """The API keys of a Secret's value: one a line, so that a new one can be added before the old one goes."""
    return [key for line in (secret or b"").splitlines() if (key := line.strip())]


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


MAX_WAITING_BYTES = 256 * 1024 * 1024
"""Of all bodies that wait in a tenant's queue. They are read there, as who does not read does not notice a hang-up."""


class Place:
    """One request's place: in its tenant's queue, then among the running ones."""

    def __init__(self, admission: Admission, joined: float) -> None:
        self._admission = admission
        self._joined = joined
        self._given = asyncio.Event()
        self.bytes = 0
        self.began = 0.0

    @property
    def given(self) -> bool:
        """The request may run."""
        return self._given.is_set()

    def give(self, now: float) -> None:
        """Let the request run."""
        self.began = now
        self._given.set()

    def hold(self, size: int) -> None:
        """Count so many bytes more of a body that waits. Raises ApiError `queue_full` for too many of the tenant's."""
        if not self.given:
            self._admission.hold(self, size)

    async def wait(self, patience: float) -> None:
        """Wait to be let in, `patience` seconds at most from the beginning. Raises ApiError `deadline_exceeded`."""
        try:
            async with asyncio.timeout(self._joined + patience - self._admission.clock()):
                await self._given.wait()
        except TimeoutError as error:
            raise ApiError(
                ErrorCode.DEADLINE_EXCEEDED, f"The request waited {patience:.0f} s in the tenant's queue."
            ) from error


class Admission:
    """One tenant's gate: so many jobs at once, so many waiting in order, so many a minute."""

    def __init__(self, limits: TenantLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._limits = limits
        self._waiting: deque[Place] = deque()
        self._waiting_bytes = 0
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
            self._refilled = self.clock()
        self._limits = limits
        self._wake()

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Hold a place; `Place.wait` says when the request may run.

        Raises:
            ApiError: `rate_limited` or `queue_full`, with Retry-After.
        """
        self._take_token()
        place = Place(self, self.clock())
        if self.running < self._limits.concurrent_requests and not self._waiting:
            self._let_in(place)
        elif len(self._waiting) >= self._limits.queued_requests:
            running, queued = self.running, self.waiting
            message = f"{running} requests of this tenant are running and {queued} are queued, which is the most."
            raise self._full(message, {"running": running, "queued": queued})
        else:
            self._waiting.append(place)
        try:
            yield place
        finally:
            if place.given:
                self.running -= 1
                self._job_seconds += 0.2 * (self.clock() - place.began - self._job_seconds)
                self._wake()
            else:
                self._waiting.remove(place)
                self._waiting_bytes -= place.bytes

    def hold(self, place: Place, size: int) -> None:
        """Count bytes of a waiting request; errors as `Place.hold`."""
        place.bytes += size
        self._waiting_bytes += size
        if self._waiting_bytes > MAX_WAITING_BYTES:
            raise self._full(
                f"The queued requests of this tenant have over {MAX_WAITING_BYTES} bytes.",
                {"queued": self.waiting, "limit_bytes": MAX_WAITING_BYTES},
            )

    def _let_in(self, place: Place) -> None:
        self.running += 1
        self._waiting_bytes -= place.bytes
        place.give(self.clock())

    def _wake(self) -> None:
        while self._waiting and self.running < self._limits.concurrent_requests:
            self._let_in(self._waiting.popleft())

    def _take_token(self) -> None:
        rate = self._limits.requests_per_minute
        if not rate:
            return
        now = self.clock()
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

    def _full(self, message: str, details: dict[str, int]) -> ApiError:
        jobs_ahead = len(self._waiting) + 1
        wait = math.ceil(self._job_seconds * jobs_ahead / self._limits.concurrent_requests)
        return ApiError(ErrorCode.QUEUE_FULL, message, details, retry_after=min(300.0, max(1.0, wait)))
