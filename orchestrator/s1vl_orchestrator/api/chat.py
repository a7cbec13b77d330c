"""OpenAI's API: `POST /v1/chat/completions` and `GET /v1/models`."""

from __future__ import annotations

import secrets
import time
from contextlib import AsyncExitStack
from typing import IO, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from s1vl_orchestrator.api.chat_answers import ChatCompletion, ChatCompletionChunk, ModelFacts, ModelList
from s1vl_orchestrator.api.openapi import (
    ELSEWHERE,
    EMBEDDED,
    KEY_NEEDED,
    KEY_OPTIONAL,
    OpenAIError,
    answer,
    body,
    errors,
    event,
    events,
    ref,
)
from s1vl_orchestrator.api.serving import Wants, place_for, tenant_of
from s1vl_orchestrator.api.streams import Channel, JobResponse
from s1vl_orchestrator.chat import ChatAnswer, check_answered
from s1vl_orchestrator.chat_requests import PLAIN_SUFFIX, ChatRequest, check, to_job
from s1vl_orchestrator.config import Engine
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.events import Event, EventName
from s1vl_orchestrator.jobs import run_job
from s1vl_orchestrator.loop import StopReason
from s1vl_orchestrator.plain import run_plain
from s1vl_orchestrator.prepare import time_limit
from s1vl_orchestrator.requests import parse_body
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.tenants import Tenant

router = APIRouter(prefix="/v1", tags=["OpenAI"])

MODELS: tuple[type[BaseModel], ...] = (ChatRequest, ChatCompletion, ChatCompletionChunk, ModelList, OpenAIError)

_NAME = "ScienceOne-AI/S1-VL-32B"
_BODY = body(
    ChatRequest,
    {
        "Thinking with an image, streamed": {
            "model": _NAME,
            "messages": [{"role": "user", "content": [EMBEDDED, {"type": "text", "text": "Which colour is it?"}]}],
            "stream": True,
        },
        "An image by its path; the answer has 16 tokens at most": {
            "model": _NAME,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "file:///data/images/panel.png"}},
                        {"type": "text", "text": "Which gas does the left panel show?"},
                    ],
                }
            ],
            "max_tokens": 16,
        },
        "Plain reasoning": {
            "model": _NAME,
            "messages": [{"role": "user", "content": [EMBEDDED, {"type": "text", "text": "Describe it."}]}],
            "thinking_with_images": False,
            "temperature": 0.6,
            "top_p": 0.95,
            "max_tokens": 16384,
        },
    },
)
_DONE = {"type": "object", "required": ["data"], "properties": {"data": {"const": "[DONE]"}}}
_COMPLETION = answer("A chat completion; with `stream` its chunks, the last of which is `[DONE]`.", ChatCompletion)
_COMPLETION["content"] |= events(
    {"anyOf": [event(ref(ChatCompletionChunk)), event(ref(OpenAIError)), _DONE]},
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'
    "data: [DONE]\n\n",
)


@router.post(
    "/chat/completions",
    operation_id="createChatCompletion",
    summary="Chat completion, thinking with images or plain",
    openapi_extra={**_BODY, "security": KEY_NEEDED},
    responses={200: _COMPLETION, **errors(*set(ErrorCode) - ELSEWHERE, openai=True)},
)
async def chat_completions(request: Request) -> JobResponse:
    """Answer in the form of OpenAI: the final answer in `content`, the thinking in `reasoning`."""
    arrived = time.monotonic()
    service: Service = request.app.state.service

    async def work(channel: Channel) -> dict[str, Any]:
        async with (
            place_for(request, service, channel, _look, arrived) as (tenant, body),
            AsyncExitStack() as held,
        ):
            await held.enter_async_context(service.tools.preparing)
            with body:
                chat = await service.workers.run(_read, body, tenant)
            if chat.stream:
                channel.open()
            if chat.plain:
                return await run_plain(chat, tenant.place, service.tools, arrived, send=channel.send, held=held)
            return await _think(chat, tenant, service, arrived, channel=channel, held=held)

    return JobResponse(request, work, _error_event)


async def _think(
    chat: ChatRequest, tenant: Tenant, service: Service, arrived: float, *, channel: Channel, held: AsyncExitStack
) -> dict[str, Any]:
    answer = ChatAnswer(chat, int(time.time()), f"chatcmpl-{secrets.token_hex(12)}")

    def tell(event: Event) -> None:
        if event.name is EventName.DONE:
            check_answered(event.data)
        for chunk in answer.chunks(event):
            channel.send(chunk)

    job = to_job(chat)
    chat.messages.clear()
    with tenant.usage.use():
        result = await run_job(job, tenant.place, service.tools, arrived, listen=tell, shown=channel.opened, held=held)
    if result["stop_reason"] == StopReason.SANDBOX_UNAVAILABLE:
        tenant.recheck()
    channel.send("[DONE]")
    return answer.whole(result)


_MODELS_ERRORS = (ErrorCode.UNAUTHORIZED, ErrorCode.NOT_CONFIGURED)


@router.get(
    "/models",
    operation_id="listModels",
    summary="The models that can be named",
    openapi_extra={"security": KEY_OPTIONAL},
    responses={200: answer("The models.", ModelList), **errors(*_MODELS_ERRORS, openai=True)},
)
async def models(request: Request) -> JSONResponse:
    """The model, and the model in plain reasoning.

    Without a key too: harnesses ask for the name before they send one. A wrong key is refused.
    """
    service: Service = request.app.state.service
    return JSONResponse({"object": "list", "data": _models(_engine(request, service), service)})


@router.get(
    "/models/{name:path}",
    operation_id="retrieveModel",
    summary="One model",
    openapi_extra={"security": KEY_OPTIONAL},
    responses={
        200: answer("The model.", ModelFacts),
        **errors(*_MODELS_ERRORS, ErrorCode.MODEL_NOT_FOUND, ErrorCode.NOT_FOUND, openai=True),
    },
)
async def model(name: str, request: Request) -> JSONResponse:
    """One entry of the list."""
    service: Service = request.app.state.service
    for entry in _models(_engine(request, service), service):
        if entry["id"] == name:
            return JSONResponse(entry)
    raise ApiError(ErrorCode.MODEL_NOT_FOUND, f"There is no model {name[:200]!r}.", {"param": "model"})


def _engine(request: Request, service: Service) -> Engine:
    if service.snapshot is None or request.headers.get("authorization") or request.headers.get("x-api-key"):
        tenant_of(request, service)
    assert service.snapshot is not None  # noqa: S101 - the line above refuses without a configuration
    return service.snapshot.config.engine


def _models(engine: Engine, service: Service) -> list[dict[str, Any]]:
    common = {
        "object": "model",
        "created": service.started_at,
        "owned_by": "s1vl",
        "max_model_len": engine.max_model_len,
    }
    return [{"id": name, **common} for name in (engine.model, engine.model + PLAIN_SUFFIX)]


def _read(body: IO[bytes], tenant: Tenant) -> ChatRequest:
    raw = body.read()
    request = parse_body(raw, ChatRequest)
    check(request, tenant.place.config.engine.model, len(raw))
    return request


def _look(body: IO[bytes], tenant: Tenant) -> Wants:
    request = _read(body, tenant)
    seconds = time_limit(request.deadline_seconds, tenant.place.config)
    return Wants(bool(request.stream), sandbox=not request.plain, seconds=seconds)


def _error_event(error: ApiError) -> tuple[str, dict[str, Any]]:
    return "", error.openai_body()
