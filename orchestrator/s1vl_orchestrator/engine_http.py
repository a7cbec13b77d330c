"""vLLM's chat completions over HTTP: requests, their stream of events, and trying again where that is safe.

Behaviour relied on, and where vLLM's versions differ, is named at each place.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import httpx

from s1vl_orchestrator.config import Engine
from s1vl_orchestrator.engine_errors import EngineUnavailableError, TryAgainError, failure_of, read_event
from s1vl_orchestrator.telemetry import Metrics

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
STALL_SECONDS = 60.0
"""Silence in the middle of a stream: a vLLM that outlived its shutdown timeout keeps streams open without a byte."""
RETRY_SECONDS = 30.0
"""How long an engine that fails is tried again."""
_BACKOFF_FIRST, _BACKOFF_MOST = 0.2, 5.0

T = TypeVar("T")


class EngineHttp:
    """One engine's HTTP API."""

    def __init__(self, config: Engine, http: httpx.AsyncClient, metrics: Metrics) -> None:
        self.config = config
        self.metrics = metrics
        self._http = http
        self._chat_url = f"{config.url}/v1/chat/completions"

    async def ready(self) -> str:
        """Return "" when the engine answers its health check, otherwise why not."""
        try:
            answer = await self._http.get(f"{self.config.url}/health", timeout=5)
        except httpx.HTTPError as error:
            return f"{self.config.url}/health: {type(error).__name__} {error}".strip()
        return "" if answer.status_code == httpx.codes.OK else f"{self.config.url}/health: HTTP {answer.status_code}"

    async def complete(self, body: dict[str, Any], until: float) -> dict[str, Any]:
        """Pass a chat completion on and return the engine's answer.

        Raises:
            TimeoutError: At `until`.
            EngineRefusedError: If the engine says that the request is wrong.
            EngineUnavailableError, TooManyImagesError, ContextFullError: As `ask`.
        """

        async def attempt(_: int) -> dict[str, Any]:
            timeout = httpx.Timeout(CONNECT_SECONDS, read=None, pool=None)
            try:
                answer = await self._http.post(self._chat_url, json=body, timeout=timeout)
            except httpx.TransportError as error:
                raise TryAgainError("connection", f"{type(error).__name__}: {error}") from error
            if answer.status_code != httpx.codes.OK:
                raise failure_of(answer)
            return read_event(answer.content)

        async with asyncio.timeout_at(loop_time(until)):
            answer = await self.retrying(attempt, until)
        self.count(answer.get("usage") or {})
        return answer

    async def relay(self, body: dict[str, Any], until: float) -> AsyncGenerator[dict[str, Any], None]:
        """Pass a streamed chat completion on and yield the engine's events; ask for its usage in `body`.

        Only what fails before the first event is tried again. Errors as `complete`, but for `until`: the caller's.
        """

        async def attempt(_: int) -> tuple[dict[str, Any] | None, AsyncGenerator[dict[str, Any], None]]:
            events = self.events(body)
            try:
                return await anext(events, None), events
            except BaseException:
                await events.aclose()
                raise

        first, events = await self.retrying(attempt, until)
        usage: dict[str, Any] = {}
        async with aclosing(events):
            try:
                if first is not None:
                    yield first
                async for event in events:
                    usage = event.get("usage") or usage
                    yield event
            except TryAgainError as failure:
                raise EngineUnavailableError(str(failure)) from failure
            finally:
                self.count(usage)

    async def retrying(self, attempt: Callable[[int], Awaitable[T]], until: float) -> T:
        """Make attempts, numbered from 1, while they raise TryAgainError and there is time.

        Raises:
            EngineUnavailableError: When there is none. All other exceptions of an attempt as they are.
        """
        give_up = until
        number = 0
        while True:
            number += 1
            try:
                return await attempt(number)
            except TryAgainError as failure:
                if number == 1:
                    give_up = min(until, time.monotonic() + RETRY_SECONDS)
                pause = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2 ** (number - 1))
                pause = max(pause * random.uniform(0.5, 1.0), failure.retry_after)  # noqa: S311 - jitter, no secret
                if time.monotonic() + pause >= give_up:
                    raise EngineUnavailableError(str(failure)) from failure
                self.metrics.engine_retries.labels(failure.cause).inc()
                log.warning("engine: %s; attempt %d, again in %.1f s", failure, number, pause)
                await asyncio.sleep(pause)

    def count(self, usage: dict[str, Any]) -> None:
        """Add the engine's numbers to the metrics."""
        self.metrics.engine_tokens.labels("prompt").inc(usage.get("prompt_tokens") or 0)
        self.metrics.engine_tokens.labels("completion").inc(usage.get("completion_tokens") or 0)

    async def events(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Ask once, with a body that has `stream`, and yield the events; closing the generator aborts the request.

        Raises:
            TryAgainError: For failures that may pass.
            EngineUnavailableError, TooManyImagesError, ContextFullError: As `failure_of`.
        """
        timeout = httpx.Timeout(CONNECT_SECONDS, read=None, pool=None)
        try:
            async with self._http.stream("POST", self._chat_url, json=body, timeout=timeout) as answer:
                if answer.status_code != httpx.codes.OK:
                    await answer.aread()
                    raise failure_of(answer)
                chunks = answer.aiter_bytes()
                # The first event may be long in coming: the request waits in the engine's queue for it.
                patience: float | None = None
                rest = b""
                while True:
                    try:
                        async with asyncio.timeout(patience):
                            chunk = await anext(chunks)
                    except StopAsyncIteration:
                        message = "the engine's stream ended before it was finished"
                        raise TryAgainError("broken_stream", message) from None
                    except TimeoutError as error:
                        raise TryAgainError("stalled", f"no byte from the engine for {STALL_SECONDS:.0f} s") from error
                    patience = STALL_SECONDS
                    # Not by `aiter_lines`: to it U+2028 and its like, which JSON has as they are, end lines too.
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if not line.startswith(b"data:"):
                            continue
                        data = line[5:].strip()
                        if data == b"[DONE]":
                            return
                        yield read_event(data)
        except httpx.TransportError as error:
            raise TryAgainError("connection", f"{type(error).__name__}: {error}") from error


def loop_time(monotonic: float) -> float:
    """The event loop's time for one of `time.monotonic()`."""
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
