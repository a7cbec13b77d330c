"""The envelope around every AIO answer: HTTP 200 alone does not say that code ran."""

from __future__ import annotations

from typing import Any

Envelope = dict[str, Any]


def success(data: Any, message: str = "", hint: str | None = None) -> Envelope:
    """The request was handled; ``data`` says how the code fared."""
    return {"success": True, "message": message or "ok", "data": data, "hint": hint}


def failure(message: str, hint: str | None = None, data: Any = None) -> Envelope:
    """The request was not handled, because of ``message``; ``hint`` says what to do about it."""
    return {"success": False, "message": message, "data": data, "hint": hint}
