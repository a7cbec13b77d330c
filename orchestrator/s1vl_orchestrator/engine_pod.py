"""One engine pod: what is known of its process, how it fares, and how much is placed there."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from s1vl_orchestrator.engine_connections import Connections, text_of
from s1vl_orchestrator.engine_errors import Cause, TryAgainError
from s1vl_orchestrator.engine_versions import UNKNOWN, facts_of

log = logging.getLogger(__name__)

HUNG = "it has requests and computes nothing"

_AVOID_FIRST, _AVOID_MOST = 2.0, 15.0


class Pod:
    """One engine pod, or what stands behind a Service where the pods are not known.

    Attributes:
        url: Scheme, host, port, and the path if any.
        address: Host and port.
        listed: New turns may go there.
        seats: Jobs and plain requests that have their place there.
        requests: Requests in flight.
        process: Another number when another process may be behind the address, which has seen no pictures.
        version: As it says, "" while it is not known.
        facts: What holds for the version.
        takes_uuids: As far as is known it takes pictures that it has seen by their `uuid` alone.
        hung: It was seen to compute nothing, which its health check does not tell.
        unhealthy: Why the last health check failed, "" if it did not, None before the first.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = urlsplit(url).netloc
        self.listed = True
        self.seats = 0
        self.requests = 0
        self.process = 0
        self.version = ""
        self.facts = UNKNOWN
        self.takes_uuids = True
        self.hung = False
        self.unhealthy: str | None = None
        self._connections = Connections()
        self._waits: dict[asyncio.Timeout, bool] = {}  # Whether it has a limit of its own.
        self._version_asked = False
        self._failures = 0
        self._avoided_until = 0.0
        self._reason = ""
        self._leaving = False
        self._unreachable = False

    @property
    def avoided(self) -> str:
        """Why new jobs should go elsewhere, or ""."""
        if self.hung:
            return HUNG
        return self._reason if time.monotonic() < self._avoided_until else self.unhealthy or ""

    @property
    def leaving(self) -> bool:
        """It shuts down, hangs or does not answer at all: the jobs that it has should go elsewhere too."""
        return self.hung or self._unreachable or (self._leaving and time.monotonic() < self._avoided_until)

    def describe(self) -> dict[str, Any]:
        """Its entry in `GET /internal/tenants`."""
        reason = self.avoided
        return {
            "address": self.address,
            "version": self.version,
            "requests": self.requests,
            "seats": self.seats,
            "listed": self.listed,
            "avoided": bool(reason),
            "reason": reason,
        }

    def failed(self, failure: TryAgainError) -> None:
        """Avoid it for some seconds, for longer with every failure in a row."""
        self._leaving = self.leaving or failure.cause in (Cause.DRAINING, Cause.REFUSED)
        seconds = _AVOID_MOST if failure.cause == Cause.DRAINING else _AVOID_FIRST * 2**self._failures
        self._failures = min(self._failures + 1, 8)
        self._reason = str(failure)
        self._avoided_until = time.monotonic() + min(_AVOID_MOST, max(seconds, failure.retry_after))

    def hang(self, hung: bool) -> None:
        """Note whether it hangs. Requests that wait for one that does are broken off."""
        self.hung = hung
        if hung:
            self._break_off(list(self._waits))

    def doubt(self) -> None:
        """One of those that it may stand for hangs: requests that would wait without a limit are broken off."""
        self._break_off([wait for wait, limited in self._waits.items() if not limited])

    @asynccontextmanager
    async def patience(self, seconds: float | None = None) -> AsyncIterator[None]:
        """Wait for the pod within.

        Raises:
            TimeoutError: After `seconds`.
            TryAgainError: When it turns out to hang, or may do so.
        """
        try:
            async with asyncio.timeout(0 if self.hung else seconds) as wait:
                self._waits[wait] = seconds is not None
                try:
                    yield
                finally:
                    del self._waits[wait]
        except TimeoutError as error:
            if self.hung or (seconds is None and wait.expired()):
                raise TryAgainError(Cause.STALLED, HUNG) from error
            raise

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        """As `Connections.post`."""
        self.requests += 1
        try:
            async with AsyncExitStack() as stack:
                async with self.patience():
                    answer = await stack.enter_async_context(self._connections.post(f"{self.url}{path}", body))
                self._failures, self._avoided_until, self._unreachable = 0, 0.0, False
                yield answer
        except TryAgainError as failure:
            if failure.cause == Cause.REFUSED:
                self._replaced()
            elif failure.cause == Cause.STALE:
                self._version_asked = False
            raise
        finally:
            self.requests -= 1

    async def probe(self) -> None:
        """Ask for its health, and for its version where that is not known. Failures are noted, not raised."""
        unreachable = False
        try:
            status, _ = await self._connections.get(f"{self.url}/health")
            problem = "" if status == HTTPStatus.OK else f"HTTP {status}"
            if not problem and not self._version_asked:
                self._learn((await self._connections.get(f"{self.url}/version"))[1])
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = text_of(error)
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                unreachable = True
                self._replaced()
        self._unreachable = unreachable
        self.unhealthy = problem and f"{self.url}/health: {problem}"

    def back(self) -> None:
        """It takes requests again, and may be another process that has the address of the one before."""
        self.listed = True
        self._replaced()

    async def close(self) -> None:
        """Close connections that are not in use, and the others when they no longer are."""
        await self._connections.close()

    def _break_off(self, waits: list[asyncio.Timeout]) -> None:
        now = asyncio.get_running_loop().time()
        for wait in waits:
            if not wait.expired():  # One that ends by itself just now cannot be told to.
                wait.reschedule(now)

    def _learn(self, answer: bytes) -> None:
        try:
            body = json.loads(answer)
        except ValueError:
            body = None
        version = str(body.get("version") or "")[:100] if isinstance(body, dict) else ""
        if version != self.version or not self._version_asked:
            log.info("engine pod %s: version %s", self.address, version or "unknown")
        self._version_asked = True
        self.version, self.facts = version, facts_of(version)

    def _replaced(self) -> None:
        self.process += 1
        self.version, self.facts, self._version_asked = "", UNKNOWN, False
        self.takes_uuids = True
