"""Holds every answer that a test sees against the documented form, which nothing does in production."""

from __future__ import annotations

import re
from typing import Any

import httpx
from pydantic import BaseModel

from s1vl_orchestrator.api.chat_answers import ChatCompletion, ChatCompletionChunk, ModelFacts, ModelList
from s1vl_orchestrator.api.health import Readiness
from s1vl_orchestrator.api.internal import ProtocolVerdict, Rechecked, State
from s1vl_orchestrator.api.openapi import Error, OpenAIError
from s1vl_orchestrator.api.process import EVENTS
from s1vl_orchestrator.api.process_answers import ProcessAnswer
from s1vl_orchestrator.events import EventName

ANSWERS: list[tuple[str, type[BaseModel]]] = [
    (r"/process", ProcessAnswer),
    (r"/v1/chat/completions", ChatCompletion),
    (r"/v1/models", ModelList),
    (r"/v1/models/.+", ModelFacts),
    (r"/internal/tenants", State),
    (r"/internal/tenants/recheck", Rechecked),
    (r"/internal/protocol", ProtocolVerdict),
    (r"/readyz", Readiness),
]


def check_form(model: type[BaseModel], raw: str | bytes, value: Any) -> None:
    """A JSON text, and what it says, is of a model's form and has nothing else."""
    read = model.model_validate_json(raw, strict=True)
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == value, f"more than {model} says: {value}"


async def check_answer(response: httpx.Response) -> None:
    """For httpx's hook: a JSON answer has its documented form."""
    path = response.request.url.path
    if response.headers.get("content-type") != "application/json" or path == "/openapi.json":
        return
    raw = await response.aread()
    if response.status_code >= 400 and path != "/readyz":
        check_form(OpenAIError if path.startswith("/v1/") else Error, raw, response.json())
        return
    for pattern, model in ANSWERS:
        if re.fullmatch(pattern, path):
            check_form(model, raw, response.json())
            return
    raise AssertionError(f"the form of {path} is not known")


def check_event(name: str, raw: str, value: Any) -> None:
    """The data of an event of `POST /process` have their documented form."""
    check_form(EVENTS[EventName(name)], raw, value)


def check_chunk(raw: str, value: Any) -> None:
    """An event of a streamed chat completion, but `[DONE]`, has its documented form."""
    check_form(OpenAIError if "error" in value else ChatCompletionChunk, raw, value)


HOOKS: dict[str, list[Any]] = {"response": [check_answer]}
