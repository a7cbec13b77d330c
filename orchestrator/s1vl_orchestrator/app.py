"""The two FastAPI applications: one for clients, one for the operator."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s1vl_orchestrator.api import chat, health, internal, process
from s1vl_orchestrator.chat_requests import ChatRequest
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.requests import ProcessRequest
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.telemetry import request_id

log = logging.getLogger(__name__)

_SANE_ID = re.compile(r"[\w.-]{1,64}")
_QUIET = {"/healthz", "/readyz", "/metrics", "/internal/tenants"}

_ERROR_FIELDS: dict[str, Any] = {
    "code": {"type": "string", "enum": [code.value for code in ErrorCode]},
    "message": {"type": "string"},
    "details": {"type": "object"},
}
_ERROR_SCHEMAS: dict[str, Any] = {
    name: {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": list(fields), "properties": fields}},
    }
    for name, fields in (
        ("Error", _ERROR_FIELDS),
        ("OpenAIError", {**_ERROR_FIELDS, "type": {"type": "string"}, "param": {"type": ["string", "null"]}}),
    )
}


def create_app(service: Service) -> FastAPI:
    """The application for clients."""
    app = FastAPI(title="s1vl orchestrator", version="1", redirect_slashes=False)
    app.include_router(process.router)
    app.include_router(chat.router)
    return _finish(app, service)


def create_management_app(service: Service) -> FastAPI:
    """The application for the operator."""
    app = FastAPI(title="s1vl orchestrator, management", version="1", redirect_slashes=False)
    app.include_router(internal.router)
    return _finish(app, service)


def _finish(app: FastAPI, service: Service) -> FastAPI:
    app.state.service = service
    app.include_router(health.router)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_middleware(_RequestContext)

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            # Read by the endpoints themselves, once there is a place for the job: FastAPI does not see them.
            for model in (ProcessRequest, ChatRequest):
                body = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas |= body.pop("$defs", {}) | {model.__name__: body}
            schemas |= _ERROR_SCHEMAS
            for path, operations in schema["paths"].items():
                name = "OpenAIError" if path.startswith("/v1/") else "Error"
                content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
                for operation in operations.values():
                    operation["responses"].pop("422", None)  # FastAPI's own; here it is a 400 like any other.
                    operation["responses"]["default"] = {"description": "An error.", "content": content}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
    return app


def _answer(request: Request, error: ApiError) -> JSONResponse:
    service: Service = request.app.state.service
    service.metrics.errors.labels(error.code.value).inc()
    return _json(request.scope, error)


def _json(scope: Scope, error: ApiError) -> JSONResponse:
    openai = scope["path"].startswith("/v1/")
    return JSONResponse(error.openai_body() if openai else error.body(), error.code.status, error.headers())


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)  # noqa: S101 - registered for it
    log.info("%s: %s", error.code.value, error.message)
    return _answer(request, error)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    known = {404: ErrorCode.NOT_FOUND, 405: ErrorCode.METHOD_NOT_ALLOWED}
    code = known.get(error.status_code, ErrorCode.INVALID_REQUEST)
    answer = _answer(request, ApiError(code, f"{request.method} {request.url.path[:200]}: {error.detail}"))
    answer.headers.update(error.headers or {})
    return answer


async def _invalid_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    found = [{"field": ".".join(map(str, item["loc"])), "problem": item["msg"]} for item in error.errors()]
    message = f"{found[0]['field']}: {found[0]['problem']}"
    return _answer(request, ApiError(ErrorCode.INVALID_REQUEST, message, {"errors": found}))


async def _client_gone(_request: Request, _error: Exception) -> JSONResponse:
    log.info("the client hung up; its job was cancelled")
    return JSONResponse(None, 499)  # Nobody reads it; it only ends the exchange for the server.


class _RequestContext:
    """ASGI middleware: a request id in logs and answer, one log line per request, and JSON for our own defects too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope).get("x-request-id", "")
        identity = asked if _SANE_ID.fullmatch(asked) else secrets.token_hex(8)
        request_id.set(identity)
        began = time.monotonic()
        status = 0

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = identity
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception:
            log.exception("a defect")
            if status:
                raise
            error = ApiError(
                ErrorCode.INTERNAL_ERROR, "The orchestrator failed; its log says why.", {"request_id": identity}
            )
            await _json(scope, error)(scope, receive, noting_send)
        if scope["path"] not in _QUIET:
            seconds = round(time.monotonic() - began, 4)
            log.info("%s %s %d", scope["method"], scope["path"][:200], status, extra={"seconds": seconds})
