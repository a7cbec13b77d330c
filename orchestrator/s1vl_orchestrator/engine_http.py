"""vLLM's chat completions over HTTP: requests, their stream of events, and trying again where that is safe."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from s1vl_orchestrator.config import Engine
from s1vl_orchestrator.engine_errors import Cause, EngineUnavailableError, TryAgainError, read_event
from s1vl_orchestrator.engine_pod import Pod
from s1vl_orchestrator.engine_pods import EnginePods
from s1vl_orchestrator.engine_seat import Seat
from s1vl_orchestrator.telemetry import Metrics

log = logging.getLogger(__name__)

CHAT = "/v1/chat/completions"
STALL_SECONDS = 60.0
"""Silence in the middle of a stream: a vLLM that outlived its shutdown timeout keeps streams open without a byte."""
RETRY_SECONDS = 30.0
"""How long an engine that fails is tried again."""
_BACKOFF_FIRST, _BACKOFF_MOST = 0.2, 5.0
_STALE_MOST = 2
_DIED_MOST = 2
"""Engines that may die under one request: it could be what they die of, and there are others to be served."""

T = TypeVar("T")


class EngineHttp:
    """The engine's HTTP API, at whichever pod takes a request."""

    def __init__(self, config: Engine, pods: EnginePods, metrics: Metrics) -> None:
        self.config = config
        self.metrics = metrics
        self._pods = pods

    def seat(self) -> Seat:
        """A place for a job."""
        return Seat(self._pods)

    async def complete(self, body: dict[str, Any], until: float) -> dict[str, Any]:
        """Pass a chat completion on and return the engine's answer.

        Raises:
            TimeoutError: At `until`.
            EngineRefusedError: If the engine says that the request is wrong.
            EngineUnavailableError, TooManyImagesError, ContextFullError: As `ask`.
        """

        async def attempt(pod: Pod, _: int) -> dict[str, Any]:
            async with pod.post(CHAT, body) as answer, pod.patience():
                return read_event(await answer.read())

        with self.seat() as seat:
            async with asyncio.timeout_at(loop_time(until)):
                answer = await self.retrying(seat, attempt, until)
        self.count(answer.get("usage") or {})
        return answer

    async def relay(self, body: dict[str, Any], until: float) -> AsyncGenerator[dict[str, Any], None]:
        """Pass a streamed chat completion on and yield the engine's events; ask for its usage in `body`.

        Only what fails before the first event is tried again. Errors as `complete`, but for `until`: the caller's.
        """

        async def attempt(pod: Pod, _: int) -> tuple[list[dict[str, Any]], AsyncGenerator[list[dict[str, Any]], None]]:
            events = self.events(pod, body)
            try:
                return await anext(events, []), events
            except BaseException:
                await events.aclose()
                raise

        usage: dict[str, Any] = {}
        with self.seat() as seat:
            first, events = await self.retrying(seat, attempt, until)
            async with aclosing(events):
                try:
                    for event in first:
                        usage = event.get("usage") or usage
                        yield event
                    async for together in events:
                        for event in together:
                            usage = event.get("usage") or usage
                            yield event
                except TryAgainError as failure:
                    seat.failed(failure)
                    raise EngineUnavailableError(str(failure)) from failure
                finally:
                    self.count(usage)

    async def retrying(self, seat: Seat, attempt: Callable[[Pod, int], Awaitable[T]], until: float) -> T:
        """Make attempts, numbered from 1, while they raise TryAgainError and there is time.

        Each goes to a pod that failed the request less often than the others, so to another one first; only when all
        have failed it the pauses grow, and what the engine asks to wait is waited.

        Raises:
            EngineUnavailableError: When there is no time. All other exceptions of an attempt as they are.
        """
        failures: Counter[str] = Counter()
        causes: Counter[str] = Counter()
        give_up = until
        while True:
            pod = seat.take(failures)
            try:
                return await attempt(pod, causes.total() + 1)
            except TryAgainError as failure:
                causes[failure.cause] += 1
                if failure.cause == Cause.STALE and causes[Cause.STALE] <= _STALE_MOST:
                    self.metrics.engine_retries.labels(failure.cause).inc()
                    continue
                failures[pod.address] += 1
                seat.failed(failure)
                give_up = min(give_up, time.monotonic() + RETRY_SECONDS)
                rounds = self._pods.rounds(failures)
                pause = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2 ** max(0, rounds - 1))
                pause *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
                if rounds:
                    pause = max(pause, failure.retry_after)
                if causes[Cause.DIED] >= _DIED_MOST or time.monotonic() + pause >= give_up:
                    raise EngineUnavailableError(str(failure)) from failure
                self.metrics.engine_retries.labels(failure.cause).inc()
                log.warning("engine pod %s: %s; again in %.1f s", pod.address, failure, pause)
                await asyncio.sleep(pause)

    def count(self, usage: dict[str, Any]) -> None:
        """Add the engine's numbers to the metrics."""
        self.metrics.engine_tokens.labels("prompt").inc(usage.get("prompt_tokens") or 0)
        self.metrics.engine_tokens.labels("completion").inc(usage.get("completion_tokens") or 0)

    async def events(self, pod: Pod, body: dict[str, Any]) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Ask once, with a body that has `stream`, and yield the events that came together, at least one at a time.

        Closing the generator aborts the request.

        Raises:
            TryAgainError: For failures that may pass.
            EngineUnavailableError, TooManyImagesError, ContextFullError: As `failure_of`.
        """
        async with pod.post(CHAT, body) as answer:
            chunks = answer.content.iter_any()
            # The first event may be long in coming: the request waits in the engine's queue for it.
            patience: float | None = None
            rest = b""
            while True:
                try:
                    async with pod.patience(patience):
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    raise TryAgainError(Cause.BROKEN, "the engine's stream ended before it was finished") from None
                except TimeoutError as error:
                    raise TryAgainError(Cause.STALLED, f"no byte from the engine for {STALL_SECONDS:.0f} s") from error
                patience = STALL_SECONDS
                # Not by `aiter_lines`: to it U+2028 and its like, which JSON has as they are, end lines too.
                *lines, rest = (rest + chunk).split(b"\n")
                data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
                done = b"[DONE]" in data
                if events := [read_event(item) for item in (data[: data.index(b"[DONE]")] if done else data)]:
                    yield events
                if done:
                    return


def loop_time(monotonic: float) -> float:
    """The event loop's time for one of `time.monotonic()`."""
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
