"""Requests to `/v1/chat/completions`, and the form of its errors."""

from __future__ import annotations

from typing import Any

import httpx

from s1vl_orchestrator.errors import ErrorCode
from tests.component.orchestrator.conftest import World, image, png, text

MODEL = "ScienceOne-AI/S1-VL-32B"
PLAIN: dict[str, Any] = {"thinking_with_images": False}


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts) or [image(png()), text()]}]


async def post(world: World, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await world.http.post(
        "/v1/chat/completions", json={"model": MODEL, "messages": user(), **body}, headers=headers
    )


def check(response: httpx.Response, code: ErrorCode) -> dict[str, Any]:
    """OpenAI's form of an error; returns its object."""
    error: dict[str, Any] = response.json()["error"]
    assert (response.status_code, error["code"]) == (code.status, code.value), response.text
    assert set(error) == {"message", "type", "param", "code", "details"}
    if code.status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return error
