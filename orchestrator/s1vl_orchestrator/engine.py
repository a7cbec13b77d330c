"""One turn of the model: streamed, and cut where its code ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any

from s1vl_orchestrator.engine_errors import (
    CacheMissError,
    Cause,
    EngineRefusedError,
    EngineUnavailableError,
    TryAgainError,
)
from s1vl_orchestrator.engine_http import EngineHttp, loop_time
from s1vl_orchestrator.engine_pod import Pod
from s1vl_orchestrator.engine_seat import Seat
from s1vl_orchestrator.protocol.profile import Profile
from s1vl_orchestrator.protocol.stream import Channel, Event, StreamParser

USAGE_SECONDS = 1.0
"""How long the engine may take, once a turn was cut, to say that it stopped there too."""

Hear = Callable[[list[Event]], None]
"""Takes what may be shown of a turn as it comes. The first list, which may be empty, says that it was taken up."""
TakeBack = Callable[[], bool]
"""Asked when a turn broke off of which something was heard: it can be said again, from its beginning."""


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
        prompt_tokens: As the engine counted, None if it never said so.
        completion_tokens: Likewise, as far as the turn was read.
        pieces: Events with text: about one a token, for an engine that does not count while it streams.
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
    pieces: int
    first_token_seconds: float | None
    seconds: float
    attempts: int


class EngineClient(EngineHttp):
    """Asks the engine. Holds no state of a job."""

    async def ask(
        self,
        seat: Seat,
        messages: list[dict[str, Any]],
        profile: Profile,
        *,
        max_tokens: int,
        until: float,
        cache_salt: str,
        code_allowed: bool,
        sampling: dict[str, Any] | None = None,
        hear: Hear,
        take_back: TakeBack | None = None,
    ) -> Said:
        """Let the model say one turn.

        Args:
            seat: The job's; pictures that its pod has seen are not sent again.
            messages: The conversation.
            profile: Tags, stop strings and sampling.
            max_tokens: Most tokens of the turn.
            until: `time.monotonic()` at which the turn is broken off; what was said by then is returned.
            cache_salt: Keeps the tenant's prefix cache apart.
            code_allowed: Stop at code; False for the final answer.
            sampling: In place of the profile's, name by name.
            hear: Told what may be shown of the turn.
            take_back: Given if that is shown at once. A turn that broke off after its first text is asked for again
                only where it says yes. Without it `hear` is told when the turn is complete.

        Raises:
            EngineUnavailableError: After the retries, or at once for what a retry cannot mend.
            TooManyImagesError: If the prompt has too many images.
            ContextFullError: If it is too long.
        """
        body: dict[str, Any] = {
            "model": self.config.model,
            "max_tokens": max_tokens,
            "stream": True,
            # Continuous: a turn that is left before its end was counted all the same.
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            # Without it a streamed answer loses text around </think> whenever there are stop strings.
            "include_stop_str_in_output": True,
            "cache_salt": cache_salt,
            **{str(name): value for name, value in profile.sampling.items()},
            **(sampling or {}),
        }
        if code_allowed:
            body["stop"] = list(profile.stop)
        started = time.monotonic()

        async def attempt(pod: Pod, number: int) -> Said:
            turn = StreamParser(profile, code_allowed=code_allowed)
            kept: list[Event] = []
            tell = kept.extend if take_back is None else hear
            try:
                said = await self._whole_or_short(
                    seat, messages, lambda sent: self._attempt(pod, {**body, "messages": sent}, turn, tell, until)
                )
            except TryAgainError as failure:
                if take_back is not None and (turn.reasoning or turn.content) and not take_back():
                    seat.failed(failure)
                    raise EngineUnavailableError(f"{failure}, after some of the turn was shown") from failure
                raise
            if take_back is None and said.first_token_seconds is not None:
                hear(kept)
            return replace(said, seconds=time.monotonic() - started, attempts=number)

        said = await self.retrying(seat, attempt, until)
        self.metrics.engine_seconds.observe(said.seconds)
        if said.first_token_seconds is not None:
            self.metrics.engine_first_token.observe(said.first_token_seconds)
        self.count({"prompt_tokens": said.prompt_tokens, "completion_tokens": said.completion_tokens})
        return said

    async def _whole_or_short(
        self, seat: Seat, messages: list[dict[str, Any]], send: Callable[[list[dict[str, Any]]], Awaitable[Said]]
    ) -> Said:
        """Leave the pictures out that the seat's pod has; where it refuses that, send all."""
        short = seat.shorten(messages)
        try:
            said = await send(short)
        except EngineRefusedError as refusal:
            if short is messages:
                raise
            said = await send(messages)
            if isinstance(refusal, CacheMissError):
                self.metrics.engine_retries.labels("image_cache_miss").inc()
            else:
                seat.refuse_uuids(refusal)
        seat.sent(messages)
        return said

    async def _attempt(self, pod: Pod, body: dict[str, Any], turn: StreamParser, hear: Hear, until: float) -> Said:
        began = time.monotonic()
        first: float | None = None
        ended: Ended | None = None
        usage: dict[str, Any] = {}
        pieces = 0
        try:
            async with asyncio.timeout_at(loop_time(until)) as patience, aclosing(self.events(pod, body)) as events:
                async for together in events:
                    usage = next((event["usage"] for event in reversed(together) if event.get("usage")), usage)
                    if first is None:
                        hear([])
                    read = _read(together, pod.facts.thinking)
                    if turn.over and read.texts:
                        # The engine went on behind the tag: what it says there is invented, and paid for.
                        break
                    if read.texts:
                        pieces += read.pieces
                        first = first or time.monotonic() - began
                        hear([event for channel, text in read.texts for event in turn.feed(channel, text)])
                        if turn.over:
                            ended = Ended.CUT
                            # Usually it stops at the same tag, and says so and its usage at once.
                            patience.reschedule(min(loop_time(until), loop_time(time.monotonic() + USAGE_SECONDS)))
                    if read.finish:
                        ended = Ended.LENGTH if read.finish == "length" and not turn.over else Ended.STOP
        except TimeoutError:
            ended = ended or Ended.TIME
        except TryAgainError:
            if ended is None:
                raise
        if ended is None:
            raise TryAgainError(Cause.BROKEN, "the engine's stream ended before it was finished")
        parsed = turn.finish(truncated=ended in (Ended.LENGTH, Ended.TIME))
        if parsed.events:
            hear(parsed.events)
        return Said(
            reasoning=parsed.reasoning,
            content=parsed.content,
            ended=ended,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            pieces=pieces,
            first_token_seconds=first,
            seconds=time.monotonic() - began,
            attempts=1,
        )


@dataclass(frozen=True)
class _Read:
    """What events that came together say: texts in order, neighbours of one channel joined, "" for no finish reason."""

    texts: list[tuple[Channel, str]]
    pieces: int
    finish: str


def _read(events: list[dict[str, Any]], thinking: tuple[str, ...]) -> _Read:
    said: list[tuple[Channel, str]] = []
    pieces, finish = 0, ""
    for event in events:
        reasoning, content, ended = _read_choice(event, thinking)
        said += [
            (channel, text) for channel, text in ((Channel.REASONING, reasoning), (Channel.CONTENT, content)) if text
        ]
        pieces += bool(reasoning or content)
        finish = ended or finish
    joined = [(channel, "".join(text for _, text in run)) for channel, run in groupby(said, key=itemgetter(0))]
    return _Read(joined, pieces, finish)


def _read_choice(event: dict[str, Any], thinking: tuple[str, ...]) -> tuple[str, str, str]:
    """Reasoning, content and finish reason of an event, each "" where there is none."""
    choice = next(iter(event.get("choices") or ()), None) or {}
    delta = choice.get("delta") or {}
    reasoning = next((_text(delta[name]) for name in thinking if delta.get(name)), "")
    return reasoning, _text(delta.get("content")), str(choice.get("finish_reason") or "")


def _text(piece: Any) -> str:
    return piece.encode(errors="replace").decode() if isinstance(piece, str) else ""
