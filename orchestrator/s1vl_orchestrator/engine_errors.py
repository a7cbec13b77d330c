"""What vLLM's failures mean: try again, shrink the prompt, or give up."""

from __future__ import annotations

import json
import re
from enum import StrEnum
from http import HTTPStatus
from typing import Any

_RETRIED = {429, 502, 503, 504}
_TOO_MANY_IMAGES = re.compile(r"at most \d+ image", re.IGNORECASE)
# vLLM's text for requests of an engine process that is dead, in answers and in streams.
_DIED = re.compile(r"EngineCore encountered an issue|EngineDeadError")
_CACHE_MISS = re.compile(r"cache miss", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"maximum context length|max_model_len|maximum model length|exceeds? .*context|context length .*exceed",
    re.IGNORECASE,
)
_COUNTED = re.compile(r"(?:request has|contains at least) (\d+) input tokens|Input length \((\d+)\)")


class EngineUnavailableError(Exception):
    """The engine did not answer, or answered with a failure, until trying again made no more sense."""


class EngineRefusedError(EngineUnavailableError):
    """The engine says that the request itself is wrong.

    Attributes:
        reason: In the engine's own words.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class CacheMissError(EngineRefusedError):
    """A picture was named by its `uuid` alone, and the engine does not have it (any more)."""


class TooManyImagesError(Exception):
    """The engine takes fewer images than the prompt has."""


class ContextFullError(Exception):
    """The prompt, or the prompt and max_tokens, is over the model's context.

    Attributes:
        prompt_tokens: The prompt's tokens as the engine counted them, where it says so; else 0.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        counted = _COUNTED.search(message)
        self.prompt_tokens = int(next(filter(None, counted.groups()))) if counted else 0


class Cause(StrEnum):
    """Why a request may be made again; for HTTP statuses it is their number."""

    REFUSED = "refused"
    """There was no connection to be had."""
    STALE = "stale_connection"
    """A connection that was kept had been closed meanwhile: says nothing about the engine."""
    CONNECTION = "connection"
    DRAINING = "draining"
    DIED = "engine_died"
    BROKEN = "broken_stream"
    STALLED = "stalled"
    ERROR = "error_in_stream"


class TryAgainError(Exception):
    """A failure that may pass.

    Attributes:
        cause: A `Cause` or an HTTP status, for the metrics too.
        retry_after: Seconds that the engine asked to wait.
    """

    def __init__(self, cause: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.cause = cause
        self.retry_after = retry_after


def read_event(data: bytes) -> dict[str, Any]:
    """Read one event of the stream. Raises TryAgainError for what is none, and for an error in its place."""
    try:
        event = json.loads(data)
    except ValueError as error:
        raise TryAgainError(Cause.BROKEN, "the engine sent something that is not JSON") from error
    if not isinstance(event, dict):
        raise TryAgainError(Cause.BROKEN, "the engine sent something that is not an event")
    if "error" in event:
        message = _message(event)
        raise TryAgainError(_cause(message, Cause.ERROR), f"the engine failed: {message}")
    return event


def failure_of(status: int, content: bytes, retry_after: str) -> Exception:
    """The exception for an answer other than 200, given its status, body and `Retry-After`."""
    try:
        message = _message(json.loads(content))
    except ValueError:
        message = content[:300].decode(errors="replace")
    said = f"the engine answered {status}: {message}"
    if status == HTTPStatus.BAD_REQUEST:
        # Two texts for "too long", by cause, and others by version: matched by meaning.
        if _TOO_MANY_IMAGES.search(message):
            return TooManyImagesError(message)
        if _TOO_LONG.search(message):
            return ContextFullError(message)
        return (CacheMissError if _CACHE_MISS.search(message) else EngineRefusedError)(said, message)
    # A vLLM that shuts down answers 500 with this text while its /health is still 200.
    cause = Cause.DRAINING if "cannot schedule new futures" in message else _cause(message, str(status))
    if cause.isdigit() and status not in _RETRIED:
        return EngineUnavailableError(said)
    return TryAgainError(cause, said, float(retry_after) if retry_after.isdigit() else 0.0)


def _cause(message: str, otherwise: str) -> str:
    return Cause.DIED if _DIED.search(message) else otherwise


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:500]
