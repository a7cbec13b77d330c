"""What the OpenAPI documents say beyond what FastAPI sees: bodies that endpoints read themselves, errors, events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from s1vl_orchestrator.errors import ApiError, ErrorCode

_REF = "#/components/schemas/{model}"

ELSEWHERE = frozenset({ErrorCode.NOT_FOUND, ErrorCode.METHOD_NOT_ALLOWED})
"""Errors where there is no such endpoint: of those that are there, only a name in the path can lead to one."""
EMBEDDED = {
    "type": "image_url",
    "image_url": {
        "url": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgAQMAAABJtOi3AAAABlBMVEXcHh4AAACvjWzUAAAADElEQVR4"
        "2mNgGNwAAACgAAGO+7G0AAAAAElFTkSuQmCC"
    },
}
"""A picture of 32x32 px for examples."""

KEY_NEEDED: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
KEY_OPTIONAL: list[dict[str, list[str]]] = [{}, *KEY_NEEDED]
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The tenant's API key."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
}
_HEADERS = {
    "X-Request-Id": {
        "description": "Also in the logs. The request's own, when it has one of at most 64 letters, digits and `_.-`.",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 64},
    },
    "Retry-After": {
        "description": "Seconds after which to ask again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"required": True, "schema": {"type": "string"}},
}


class ErrorFacts(BaseModel):
    """What went wrong: a code for programs, a sentence for people, and facts, with the numbers."""

    code: ErrorCode
    message: str
    details: dict[str, Any]


class Error(BaseModel):
    """An error."""

    error: ErrorFacts


class OpenAIErrorFacts(ErrorFacts):
    """The same with OpenAI's fields. `param` is the field of the request that is at fault, where it is one."""

    type: str
    param: str | None


class OpenAIError(BaseModel):
    """An error of the endpoints below `/v1`."""

    error: OpenAIErrorFacts


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a model's schema; `document` must be given the model."""
    return {"$ref": _REF.format(model=model.__name__)}


def body(model: type[BaseModel], examples: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The `openapi_extra` of an endpoint that reads its JSON body itself.

    Args:
        model: The form of the body.
        examples: Bodies, with a sentence on each as the key.
    """
    named = {f"example{number}": {"summary": said, "value": value} for number, (said, value) in _numbered(examples)}
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ref(model), "examples": named}},
        }
    }


def answer(description: str, model: type[BaseModel], example: dict[str, Any] | None = None) -> dict[str, Any]:
    """One JSON answer, for FastAPI's `responses`."""
    content: dict[str, Any] = {"schema": ref(model)}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}


def events(schema: dict[str, Any], example: str) -> dict[str, Any]:
    """The content `text/event-stream`. In OpenAPI 3.1 its `schema` is that of each event.

    Args:
        schema: Of an event, as the object of its fields `event` and `data`.
        example: The beginning of a stream.
    """
    return {"text/event-stream": {"schema": schema, "example": example}}


def event(data: dict[str, Any], name: str = "") -> dict[str, Any]:
    """The schema of one event: `data` is that of the JSON in its data."""
    fields: dict[str, Any] = {"data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data}}
    if name:
        fields["event"] = {"const": name}
    return {"type": "object", "required": sorted(fields), "properties": fields}


def errors(*codes: ErrorCode, openai: bool = False) -> dict[int | str, dict[str, Any]]:
    """The errors of an endpoint, for FastAPI's `responses`; `internal_error` is one of every endpoint.

    Args:
        codes: Those that it may answer with.
        openai: In OpenAI's form.
    """
    by_status: dict[int | str, list[ErrorCode]] = {}
    for code in ErrorCode:
        if code in codes or code is ErrorCode.INTERNAL_ERROR:
            by_status.setdefault(code.status, []).append(code)
    return {status: _error(group, openai=openai) for status, group in by_status.items()}


def _error(codes: list[ErrorCode], *, openai: bool) -> dict[str, Any]:
    only = {"properties": {"error": {"properties": {"code": {"enum": [code.value for code in codes]}}}}}
    examples = {}
    headers: set[str] = set()
    for code in codes:
        made = ApiError(code, code.meaning, retry_after=1 if code.status in (429, 503) else None)
        examples[code.value] = {"value": made.openai_body() if openai else made.body()}
        headers |= made.headers().keys()
    schema = {"allOf": [ref(OpenAIError if openai else Error), only]}
    return {
        "description": " ".join(f"`{code.value}`: {code.meaning}" for code in codes),
        "headers": {name: _header(name) for name in sorted(headers)},
        "content": {"application/json": {"schema": schema, "examples": examples}},
    }


def document(app: FastAPI, models: Iterable[type[BaseModel]], tags: dict[str, str]) -> dict[str, Any]:
    """The OpenAPI document of an application.

    Args:
        app: With all its routes.
        models: Everything that its routes refer to by `ref`.
        tags: What tags mean; those that the routes have are named.
    """
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
    )
    # Requests as they may be sent. What is not in an answer is not there, so its schema is the same either way.
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    components = schema.setdefault("components", {})
    components["schemas"] = definitions["$defs"]
    components["headers"] = _HEADERS
    secured, used = False, set()
    for operations in schema["paths"].values():
        for operation in operations.values():
            secured = secured or "security" in operation
            used.update(operation["tags"])
            operation["responses"].pop("422", None)  # FastAPI's own; here it is a 400 like any other.
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-Id"] = _header("X-Request-Id")
    schema["tags"] = [{"name": name, "description": said} for name, said in tags.items() if name in used]
    if secured:
        components["securitySchemes"] = _KEYS
    return schema


def _header(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/headers/{name}"}


def _numbered(examples: dict[str, dict[str, Any]]) -> Iterable[tuple[int, tuple[str, dict[str, Any]]]]:
    return enumerate(examples.items(), 1)
