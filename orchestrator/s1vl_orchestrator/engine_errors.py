"""What vLLM's failures mean: try again, shrink the prompt, or give up."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

_RETRIED = {429, 502, 503, 504}
_TOO_MANY_IMAGES = re.compile(r"at most \d+ image", re.IGNORECASE)
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


class TryAgainError(Exception):
    """A failure that may pass.

    Attributes:
        cause: A short name for the metrics.
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
        raise TryAgainError("broken_stream", "the engine sent something that is not JSON") from error
    if not isinstance(event, dict):
        raise TryAgainError("broken_stream", "the engine sent something that is not an event")
    if "error" in event:
        raise TryAgainError("error_in_stream", f"the engine failed: {_message(event)}")
    return event


def failure_of(answer: httpx.Response) -> Exception:
    """The exception for an answer other than 200."""
    try:
        message = _message(answer.json())
    except ValueError:
        message = answer.text[:300]
    status = answer.status_code
    said = f"the engine answered {status}: {message}"
    if status == httpx.codes.BAD_REQUEST:
        # Two texts for "too long", by cause, and others by version: matched by meaning.
        if _TOO_MANY_IMAGES.search(message):
            return TooManyImagesError(message)
        if _TOO_LONG.search(message):
            return ContextFullError(message)
        return (CacheMissError if _CACHE_MISS.search(message) else EngineRefusedError)(said, message)
    # A draining vLLM answers 500 with this text while its /health is still 200.
    if status in _RETRIED or "cannot schedule new futures" in message:
        wait = answer.headers.get("retry-after", "")
        return TryAgainError(str(status), said, float(wait) if wait.isdigit() else 0.0)
    return EngineUnavailableError(said)


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:500]
