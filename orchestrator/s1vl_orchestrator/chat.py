"""A job's events and answer as an OpenAI chat completion. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from s1vl_orchestrator.chat_requests import ChatRequest
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.events import Event, EventName
from s1vl_orchestrator.loop import StopReason

BYTES_PER_TOKEN = 4
"""Of UTF-8, on average, in English and in Chinese: `max_tokens` bounds an answer's bytes by it."""

_CUT_SHORT = {StopReason.DEADLINE, StopReason.CONTEXT_FULL, StopReason.ENGINE_ERROR}


class Cutter:
    """Ends a text that comes in pieces at a number of bytes or before a stop string, however it is split."""

    def __init__(self, limit: int | None, stops: list[str]) -> None:
        self._left = limit
        self._stops = stops
        self._keep = max(map(len, stops), default=1) - 1
        self._held = ""
        self.ended = ""

    def feed(self, piece: str) -> str:
        """Take the next piece; returns what can be shown."""
        text = self._held + piece
        # The one that is complete first, as vLLM stops: what would come behind it must not matter.
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return self._take(text[: min(found)[1]], "stop")
        keep = min(self._keep, len(text))
        self._held = text[len(text) - keep :]
        return self._take(text[: len(text) - keep])

    def flush(self) -> str:
        """The rest, at the end of the text."""
        return self._take(self._held)

    def _take(self, text: str, ended: str = "") -> str:
        if self.ended:
            return ""
        self.ended = ended
        if self._left is not None:
            raw = text.encode(errors="replace")
            if len(raw) > self._left:
                text, self.ended = raw[: self._left].decode(errors="ignore"), "length"
            self._left -= len(raw)
        return text


class ChatAnswer:
    """One chat completion as it is made.

    Args:
        request: What the client wants of it.
        created: Unix time in seconds.
        identity: Its id.
    """

    def __init__(self, request: ChatRequest, created: int, identity: str) -> None:
        self._limit = None if request.answer_limit is None else request.answer_limit * BYTES_PER_TOKEN
        self._stops = request.stops
        self._cutter = Cutter(self._limit, self._stops)
        self._include_usage = request.include_usage
        self._head = {"id": identity, "created": created, "model": request.model}
        self._reasoning: list[str] = []
        self._begun = False

    def chunks(self, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks of a stream for one event. Every event must be passed, stream or not."""
        if not self._begun:
            self._begun = True
            yield self._chunk({"role": "assistant", "content": ""})
        thinking, content = _thinking(event), ""
        if event.name is EventName.ANSWER_DELTA:
            # What was sent cannot be taken back: the corrected answer stands below it.
            text = f"\n\n{event.data['text']}" if event.data.get("restart") else event.data["text"]
            content = self._cutter.feed(text)
        elif event.name is EventName.DONE:
            content = self._cutter.flush()
        if thinking:
            self._reasoning.append(thinking)
            yield self._chunk({"reasoning": thinking, "reasoning_content": thinking})
        if content:
            yield self._chunk({"content": content})
        if event.name is EventName.DONE:
            yield self._chunk({}, self._finish_reason(event.data)) | _facts(event.data)
            if self._include_usage:
                yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(event.data)}

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The completion, after all events."""
        thinking = "".join(self._reasoning)
        self._cutter = Cutter(self._limit, self._stops)
        message = {
            "role": "assistant",
            "content": self._cutter.feed(answer["answer"] or "") + self._cutter.flush(),
            "refusal": None,
            "reasoning": thinking,
            "reasoning_content": thinking,
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason(answer)}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": _usage(answer),
            **_facts(answer),
        }

    def _finish_reason(self, answer: dict[str, Any]) -> str:
        cut = answer["answer"] is None or answer["stop_reason"] in _CUT_SHORT
        return "length" if cut and self._cutter.ended != "stop" else self._cutter.ended or "stop"

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice]}


def check_answered(answer: dict[str, Any]) -> None:
    """Let a client ask again where the engine failed before there was any answer.

    Raises:
        ApiError: `engine_unavailable`.
    """
    if answer["answer"] is None and answer["stop_reason"] == StopReason.ENGINE_ERROR:
        raise ApiError(ErrorCode.ENGINE_UNAVAILABLE, f"The engine stopped answering: {answer['detail']}", retry_after=5)


def _thinking(event: Event) -> str:
    match event.name:
        case EventName.TURN_START if event.data.get("restart"):
            return "\n\n"
        case EventName.REASONING_DELTA:
            return str(event.data["text"])
        case EventName.CODE:
            return f"\n\n```python\n{event.data['code']}\n```\n\n"
        case EventName.EXEC_RESULT:
            return f"```text\n{event.data['text']}\n```\n\n"
        case _:
            return ""


def _usage(answer: dict[str, Any]) -> dict[str, Any]:
    cached = sum(turn["engine"]["cached_tokens"] or 0 for turn in answer["turns"])
    return {**answer["usage"], "prompt_tokens_details": {"cached_tokens": cached}}


def _facts(answer: dict[str, Any]) -> dict[str, Any]:
    """What `POST /process` says besides, for clients that look for it."""
    return {"thinking_with_images": {name: answer[name] for name in ("id", "stop_reason", "detail", "turns", "images")}}
