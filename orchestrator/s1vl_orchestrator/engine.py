"""The client of vLLM's chat completions: streams one turn, cuts it, and tries again where that is safe.

Behaviour relied on, and where vLLM's versions differ, is named at each place.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from s1vl_orchestrator.config import Engine
from s1vl_orchestrator.engine_errors import EngineUnavailableError, TryAgainError, failure_of, read_event
from s1vl_orchestrator.protocol.parser import TurnText
from s1vl_orchestrator.protocol.profile import Profile
from s1vl_orchestrator.telemetry import Metrics

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
STALL_SECONDS = 60.0
"""Silence in the middle of a stream: a vLLM that outlived its shutdown timeout keeps streams open without a byte."""
RETRY_SECONDS = 30.0
"""How long an engine that fails is tried again."""
_BACKOFF_FIRST, _BACKOFF_MOST = 0.2, 5.0
_EVENTS_AFTER_CUT = 3


class Ended(StrEnum):
    """How a turn ended: the engine stopped, had no tokens left, went on and was left, or time was up."""

    STOP = "stop"
    LENGTH = "length"
    CUT = "cut"
    TIME = "time"


@dataclass(frozen=True)
class Said:
    """One turn of the model.

    Attributes:
        reasoning: Text before `</think>`, or all of it where thinking was not closed.
        content: Text after it.
        ended: How it ended.
        prompt_tokens: As the engine counted, None if the stream was cut before it said so.
        completion_tokens: Likewise.
        cached_tokens: Prompt tokens found in the prefix cache, None where the engine does not say.
        first_token_seconds: From the request that succeeded to its first text.
        seconds: All attempts together.
        attempts: Requests made.
    """

    reasoning: str
    content: str
    ended: Ended
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    first_token_seconds: float | None
    seconds: float
    attempts: int


class EngineClient:
    """Asks one engine. Holds no state of a job."""

    def __init__(self, config: Engine, http: httpx.AsyncClient, metrics: Metrics) -> None:
        self._config = config
        self._http = http
        self._metrics = metrics

    async def ready(self) -> str:
        """Return "" when the engine answers its health check, otherwise why not."""
        try:
            answer = await self._http.get(f"{self._config.url}/health", timeout=5)
        except httpx.HTTPError as error:
            return f"{self._config.url}/health: {type(error).__name__} {error}".strip()
        return "" if answer.status_code == httpx.codes.OK else f"{self._config.url}/health: HTTP {answer.status_code}"

    async def ask(
        self,
        messages: list[dict[str, Any]],
        profile: Profile,
        *,
        max_tokens: int,
        until: float,
        cache_salt: str,
        code_allowed: bool,
    ) -> Said:
        """Let the model say one turn.

        Args:
            messages: The conversation.
            profile: Tags, stop strings and sampling.
            max_tokens: Most tokens of the turn.
            until: `time.monotonic()` at which the turn is broken off; what was said by then is returned.
            cache_salt: Keeps the tenant's prefix cache apart.
            code_allowed: Stop at code; False for the final answer.

        Raises:
            EngineUnavailableError: After the retries, or at once for what a retry cannot mend.
            TooManyImagesError: If the prompt has too many images.
            ContextFullError: If it is too long.
        """
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            # Without it a streamed answer loses text around </think> whenever there are stop strings.
            "include_stop_str_in_output": True,
            "cache_salt": cache_salt,
            **profile.sampling,
        }
        if code_allowed:
            body["stop"] = list(profile.stop)
        started = time.monotonic()
        give_up = until
        attempt = 0
        while True:
            attempt += 1
            try:
                said = await self._attempt(body, TurnText(profile, stop_at_code=code_allowed), started, until, attempt)
            except TryAgainError as failure:
                if attempt == 1:
                    give_up = min(until, time.monotonic() + RETRY_SECONDS)
                pause = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2 ** (attempt - 1))
                pause = max(pause * random.uniform(0.5, 1.0), failure.retry_after)  # noqa: S311 - jitter, no secret
                if time.monotonic() + pause >= give_up:
                    raise EngineUnavailableError(str(failure)) from failure
                self._metrics.engine_retries.labels(failure.cause).inc()
                log.warning("engine: %s; attempt %d, again in %.1f s", failure, attempt, pause)
                await asyncio.sleep(pause)
                continue
            self._observe(said)
            return said

    def _observe(self, said: Said) -> None:
        self._metrics.engine_seconds.observe(said.seconds)
        if said.first_token_seconds is not None:
            self._metrics.engine_first_token.observe(said.first_token_seconds)
        self._metrics.engine_tokens.labels("prompt").inc(said.prompt_tokens or 0)
        self._metrics.engine_tokens.labels("completion").inc(said.completion_tokens or 0)

    async def _attempt(self, body: dict[str, Any], text: TurnText, started: float, until: float, attempt: int) -> Said:
        began = time.monotonic()
        first: float | None = None
        ended: Ended | None = None
        usage: dict[str, Any] = {}
        after_cut = 0
        try:
            async with asyncio.timeout_at(_loop_time(until)), aclosing(self._events(body)) as events:
                async for event in events:
                    usage = event.get("usage") or usage
                    for choice in event.get("choices") or ():
                        delta = choice.get("delta") or {}
                        # `reasoning` since 0.16, `reasoning_content` before; between them both, with equal text.
                        reasoning = _text(delta.get("reasoning") or delta.get("reasoning_content"))
                        content = _text(delta.get("content"))
                        if first is None and (reasoning or content):
                            first = time.monotonic() - began
                        if text.cut:
                            after_cut += bool(reasoning or content)
                        elif text.feed(reasoning, content):
                            ended = Ended.CUT
                        if choice.get("finish_reason") and not after_cut:
                            cut_short = choice["finish_reason"] == "length" and not text.cut
                            ended = Ended.LENGTH if cut_short else Ended.STOP
                    # The engine stops at the same tag and still sends its usage. One that does not stop is left.
                    if after_cut >= _EVENTS_AFTER_CUT:
                        break
        except TimeoutError:
            if not text.cut:
                ended = Ended.TIME
        if ended is None:
            raise TryAgainError("broken_stream", "the engine's stream ended before it was finished")
        return Said(
            reasoning=text.reasoning,
            content=text.content,
            ended=ended,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            first_token_seconds=first,
            seconds=time.monotonic() - started,
            attempts=attempt,
        )

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        timeout = httpx.Timeout(CONNECT_SECONDS, read=None, pool=None)
        try:
            async with self._http.stream(
                "POST", f"{self._config.url}/v1/chat/completions", json=body, timeout=timeout
            ) as answer:
                if answer.status_code != httpx.codes.OK:
                    await answer.aread()
                    raise failure_of(answer)
                lines = answer.aiter_lines()
                # The first event may be long in coming: the request waits in the engine's queue for it.
                patience: float | None = None
                while True:
                    try:
                        async with asyncio.timeout(patience):
                            line = await anext(lines)
                    except StopAsyncIteration:
                        return
                    except TimeoutError as error:
                        raise TryAgainError("stalled", f"no byte from the engine for {STALL_SECONDS:.0f} s") from error
                    patience = STALL_SECONDS
                    if not line.startswith("data:"):
                        continue
                    data = line[5:].strip()
                    if data == "[DONE]":
                        return
                    yield read_event(data)
        except httpx.TransportError as error:
            raise TryAgainError("connection", f"{type(error).__name__}: {error}") from error


def _text(piece: Any) -> str:
    return piece.encode(errors="replace").decode() if isinstance(piece, str) else ""


def _loop_time(monotonic: float) -> float:
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
