"""The two FastAPI applications: one for clients, one for the operator."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s1vl_orchestrator.api import chat, health, images, internal, process
from s1vl_orchestrator.api.openapi import Error, document
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.telemetry import request_id

log = logging.getLogger(__name__)

_SANE_ID = re.compile(r"[\w.-]{1,64}")
_QUIET = {"/healthz", "/readyz", "/metrics", "/internal/tenants"}

_DESCRIPTION = """
Lets S1-VL think with images. `docs/http-api.md` says more.

Every answer carries `X-Request-Id`. Errors have a `code` that never changes its meaning; 429 and 503 say in
`Retry-After` when to ask again. A path that does not exist is a 404 `not_found`, a method that it does not have a 405
`method_not_allowed`. What is not HTTP at all is a 400 in plain text.
"""
_TAGS = {
    "Thinking with images": "The model card's own endpoint.",
    "OpenAI": "The same for `openai` clients and evaluation harnesses, and plain reasoning.",
    "Pictures": "What jobs made.",
    "Management": "For the operator.",
    "Health": "For the kubelet and Prometheus.",
}


def create_app(service: Service) -> FastAPI:
    """The application for clients."""
    routers = (process.router, chat.router, images.router)
    models = (*process.MODELS, *chat.MODELS, *images.MODELS)
    return _app("s1vl orchestrator", service, routers, models)


def create_management_app(service: Service) -> FastAPI:
    """The application for the operator."""
    return _app("s1vl orchestrator, management", service, (internal.router,), (*internal.MODELS, Error))


def _app(title: str, service: Service, routers: tuple[APIRouter, ...], models: tuple[type[BaseModel], ...]) -> FastAPI:
    # Its pages load nothing from the internet, which a cluster may not have.
    app = FastAPIOffline(title=title, version="1", description=_DESCRIPTION, redirect_slashes=False)
    app.state.service = service
    for router in (*routers, health.router):
        app.include_router(router)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_middleware(_RequestContext, service=service)

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = document(app, (*models, *health.MODELS), _TAGS)
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
    return JSONResponse(None, 499)  # Nobody reads it; it only ends the exchange for the server.


class _RequestContext:
    """ASGI middleware: a request id in logs and answer, one log line per request, and JSON for our own defects too."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

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
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = identity
                if self._service.leaving:
                    headers["Connection"] = "close"
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
