"""Plain multimodal reasoning: one request to the engine, passed on but for what would reach beyond the tenant."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

from s1vl_orchestrator.budget import MAX_PIXELS
from s1vl_orchestrator.chat_forward import engine_body, pictures_of
from s1vl_orchestrator.chat_requests import ChatRequest
from s1vl_orchestrator.conversation import ShownImage
from s1vl_orchestrator.engine_errors import EngineRefusedError
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.inputs import read_inputs
from s1vl_orchestrator.jobs import FAILURES, Place, Tools, as_api_error
from s1vl_orchestrator.requests import Prompt
from s1vl_orchestrator.telemetry import job_id
from s1vl_orchestrator.workspace import Workspace

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any] | str], None]

PLAIN_SECONDS = 600.0
"""The openai client's own time limit: the model may think for its whole context in one go."""


async def run_plain(
    request: ChatRequest, place: Place, tools: Tools, arrived: float, *, send: Send, held: AsyncExitStack
) -> dict[str, Any]:
    """Pass a request on; returns the engine's answer, or {} where it was streamed.

    Args:
        request: Checked; its pictures are taken out of it.
        place: The tenant's clients and paths.
        tools: What all jobs share.
        arrived: `time.monotonic()` of the request's arrival.
        send: Takes the events of a stream.
        held: Has a place of `tools.preparing`; closed as soon as the pictures are out of memory.

    Raises:
        ApiError: For everything that gives no answer.
    """
    identity = secrets.token_hex(12)
    job_id.set(identity)
    until = arrived + PLAIN_SECONDS
    workspace = Workspace(place.paths, identity, place.names, tools.workers)
    tools.metrics.plain_requests.labels(place.tenant).inc()
    prompt = pictures_of(request)
    pictures = len(prompt.embedded)
    try:
        body = await _prepare(request, prompt, place, tools, workspace)
        await held.aclose()
        if request.stream:
            await _relay(request, body, place, until, send)
            return {}
        return _with_both_names(await place.engine.complete(body, until))
    except TimeoutError as error:
        message = f"The engine did not finish within {PLAIN_SECONDS:.0f} s."
        raise ApiError(ErrorCode.DEADLINE_EXCEEDED, message, {"deadline_seconds": PLAIN_SECONDS}) from error
    except EngineRefusedError as error:
        raise ApiError(ErrorCode.INVALID_REQUEST, f"The engine says: {error.reason}") from error
    except FAILURES as error:
        raise as_api_error(error, place.config, pictures) from error
    finally:
        if pictures:
            await asyncio.shield(asyncio.ensure_future(workspace.close(keep=False)))


async def _prepare(
    request: ChatRequest, prompt: Prompt, place: Place, tools: Tools, workspace: Workspace
) -> dict[str, Any]:
    shown: dict[int, ShownImage] = {}
    if prompt.embedded:
        limit = place.config.engine.images_per_prompt
        inputs = await read_inputs(prompt, place.paths, tools.workers, limit=limit, pixels=lambda _: MAX_PIXELS)
        await workspace.open([])
        for item in inputs:
            image = await workspace.show(item.picture.copy, item.client_path or "")
            shown |= dict.fromkeys(item.embedded, image)
    return engine_body(request, prompt, shown, model=place.config.engine.model, cache_salt=place.names.cache_salt)


async def _relay(request: ChatRequest, body: dict[str, Any], place: Place, until: float, send: Send) -> None:
    async with asyncio.timeout(until - time.monotonic()), aclosing(place.engine.relay(body, until)) as events:
        async for event in events:
            # The usage is asked for in any case, to be counted, and passed on where the client asked.
            if event.get("choices") or request.include_usage:
                send(_with_both_names(event))
    send("[DONE]")


def _with_both_names(answer: dict[str, Any]) -> dict[str, Any]:
    """Thinking under its new and its old name, whichever the engine's version uses."""
    for choice in answer.get("choices") or ():
        for part in (choice.get("message"), choice.get("delta")):
            if part:
                thinking = part.get("reasoning") or part.get("reasoning_content")
                if thinking is not None or "reasoning" in part or "reasoning_content" in part:
                    part["reasoning"] = part["reasoning_content"] = thinking
    return answer
