"""What the engine's failures mean."""

from __future__ import annotations

import json

import pytest

from s1vl_orchestrator.engine_errors import (
    CacheMissError,
    Cause,
    ContextFullError,
    EngineRefusedError,
    EngineUnavailableError,
    TooManyImagesError,
    TryAgainError,
    failure_of,
    read_event,
)

DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "At most 15 image(s) may be provided in one prompt. (parameter=image)", TooManyImagesError),
        (400, "Input length (40825) exceeds model's maximum context length (32768).", ContextFullError),
        (400, "Cache miss for image at index 0 but data is not provided.", CacheMissError),
        (400, "Invalid regex.", EngineRefusedError),
        (404, "The model `x` does not exist.", EngineUnavailableError),
        (500, "[Errno 2] No such file or directory: '<path>'", EngineUnavailableError),
        (500, "cannot schedule new futures after shutdown", Cause.DRAINING),
        (500, DEAD, Cause.DIED),
        (429, "", "429"),
        (502, "", "502"),
        (503, "The request queue is full (8 waiting).", "503"),
        (504, "", "504"),
    ],
)
def test_answers(status: int, message: str, expected: type[Exception] | str) -> None:
    failure = failure_of(status, json.dumps({"error": {"message": message, "code": status}}).encode(), "")
    if isinstance(expected, str):
        assert isinstance(failure, TryAgainError)
        assert failure.cause == expected
    else:
        assert type(failure) is expected


@pytest.mark.parametrize(("header", "seconds"), [("", 0), ("7", 7), ("Tue, 24 Nov 2026 22:00:00 GMT", 0), ("-1", 0)])
def test_what_it_asks_to_wait(header: str, seconds: float) -> None:
    failure = failure_of(503, b"<html>upstream \xff</html>", header)
    assert isinstance(failure, TryAgainError)
    assert failure.retry_after == seconds
    assert "<html>upstream" in str(failure)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"{", Cause.BROKEN),
        (b"[]", Cause.BROKEN),
        (b'{"error": {"message": "boom"}}', Cause.ERROR),
        (json.dumps({"error": {"message": DEAD}}).encode(), Cause.DIED),
    ],
)
def test_events_that_are_failures(data: bytes, cause: Cause) -> None:
    with pytest.raises(TryAgainError) as caught:
        read_event(data)
    assert caught.value.cause == cause
