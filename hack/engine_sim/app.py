"""The HTTP application: vLLM's routes and, under `/sim`, the simulator's own."""

from __future__ import annotations

import asyncio
import hmac
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hack.engine_sim import chat, errors
from hack.engine_sim.admin import admin_router
from hack.engine_sim.protocol import ChatRequest, TokenizeRequest
from hack.engine_sim.state import Simulator
from hack.engine_sim.tokens import SPECIAL, split_text

GUARDED = "/v1"  # what --api-key protects; everything else stays open, as in vLLM
UNCOUNTED = ("/metrics", "/health", "/load", "/ping", "/version", "/server_info")
CLIENT_GONE = 499
_PAD_ID = SPECIAL.index("<|image_pad|>")


def create_app(sim: Simulator) -> ASGIApp:
    """Return the application of a simulator."""
    app = FastAPI(title="vLLM (simulated)", version=sim.behaviour.version)
    app.add_exception_handler(errors.ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(Exception, _on_crash)
    _add_inference(app, sim)
    _add_status(app, sim)
    app.include_router(admin_router(sim))
    return _Edge(app, sim)


async def _on_api_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, errors.ApiError):
        raise error
    return JSONResponse(error.body(), error.status)


async def _on_invalid(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    found = [_problem(item) for item in error.errors()]
    message = f"{len(found)} validation error{'s' if len(found) > 1 else ''}:\n" + "\n".join(f"  {it}" for it in found)
    return JSONResponse(errors.ApiError(message, kind="Bad Request", param=found[0]["loc"]).body(), 400)


def _problem(item: dict[str, Any]) -> dict[str, Any]:
    """Return what vLLM says of one error of a body."""
    value = item["input"]
    shown = f"<{type(value).__name__} of {len(value)} items>" if isinstance(value, dict | list) else str(value)
    said = {"type": item["type"], "loc": ".".join(map(str, item["loc"])), "msg": item["msg"], "input": shown}
    return said | ({"ctx": item["ctx"]} if "ctx" in item else {})


async def _on_crash(_: Request, error: Exception) -> Response:
    """Answer an unforeseen error. The server then closes the connection without having said so, as vLLM's does."""
    return JSONResponse(errors.internal(str(error)).body(), 500)


def _add_inference(app: FastAPI, sim: Simulator) -> None:
    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        seen = chat.new_seen(body, len(await request.body()))
        sim.seen.append(seen)
        try:
            job = await chat.accept(body, seen, sim)
            if body.stream:
                return StreamingResponse(chat.stream(job, sim), media_type="text/event-stream")
            return await _whole_while_connected(job, request, sim)
        except errors.ApiError as error:
            seen.status, seen.error = error.status, error.message
            raise
        except chat.ConnectionCutError:
            return StreamingResponse(
                _nothing_then_cut(), headers={"content-length": "2"}, media_type="application/json"
            )
        except Exception as error:
            seen.status, seen.error = 500, str(error)
            raise

    @app.post("/tokenize")
    async def tokenize(body: TokenizeRequest) -> dict[str, Any]:
        if body.model is not None and body.model not in sim.options.served_names:
            raise errors.unknown_model(body.model, sim.options.served_names)
        if body.messages is not None:
            tokens = (await chat.read_prompt(_as_tokenize_reads(body.messages, sim), sim))[1]
        else:
            tokens = [token.id for token in split_text(body.prompt or "")]
        shown = [token if token >= 0 else _PAD_ID for token in tokens]
        return {
            "count": len(shown), "max_model_len": sim.options.max_model_len, "tokens": shown, "token_strs": None
        }  # fmt: skip


def _as_tokenize_reads(messages: list[dict[str, Any]], sim: Simulator) -> list[dict[str, Any]]:
    """Drop what only the chat endpoint understands: since the field was renamed, its old name."""
    if sim.behaviour.field_reasoning_content:
        return messages
    return [{key: value for key, value in message.items() if key != "reasoning_content"} for message in messages]


async def _nothing_then_cut() -> AsyncIterator[bytes]:
    yield b""
    raise chat.ConnectionCutError


async def _whole_while_connected(job: chat.Job, request: Request, sim: Simulator) -> Response:
    """Generate the answer, but stop as soon as the client is gone."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answer, watch = asyncio.ensure_future(chat.whole(job, sim)), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({answer, watch}, return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(answer.result()) if answer.done() else Response(status_code=CLIENT_GONE)
    finally:
        for task in (answer, watch):
            task.cancel()
        await asyncio.gather(answer, watch, return_exceptions=True)


def _add_status(app: FastAPI, sim: Simulator) -> None:
    created = int(time.time())

    async def health() -> Response:
        return Response(status_code=sim.injector.faults.health_status)

    app.add_api_route("/health", health, methods=["GET"])
    app.add_api_route("/ping", health, methods=["GET", "POST"])

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": sim.behaviour.version}

    @app.get("/load")
    async def load() -> dict[str, int]:
        return {"server_load": sim.engine.load if sim.options.track_load else 0}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(sim.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_card(name, sim, created) for name in sim.options.served_names]}


def _model_card(name: str, sim: Simulator, created: int) -> dict[str, Any]:
    permission = {
        "id": f"modelperm-{uuid.uuid4().hex}", "object": "model_permission", "created": created,
        "allow_create_engine": False, "allow_sampling": True, "allow_logprobs": True, "allow_search_indices": False,
        "allow_view": True, "allow_fine_tuning": False, "organization": "*", "group": None, "is_blocking": False,
    }  # fmt: skip
    return {
        "id": name, "object": "model", "created": created, "owned_by": "vllm", "root": sim.options.model,
        "parent": None, "max_model_len": sim.options.max_model_len, "permission": [permission],
    }  # fmt: skip


class _Edge:
    """The outermost layer: the API key, and the count of answers by status."""

    def __init__(self, app: FastAPI, sim: Simulator):
        self._app = app
        self._sim = sim
        self._paths = {getattr(route, "path", "") for route in app.routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["path"] not in UNCOUNTED:
                handler = scope["path"] if scope["path"] in self._paths else "none"
                group = f"{message['status'] // 100}xx"
                self._sim.metrics.http_requests.labels(scope["method"], group, handler).inc()
            await send(message)

        if scope["path"].startswith(GUARDED) and not self._allowed(scope):
            await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, counted)
            return
        await self._app(scope, receive, counted)

    def _allowed(self, scope: Scope) -> bool:
        keys = self._sim.options.api_keys
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return not keys or any(hmac.compare_digest(sent, f"Bearer {key}".encode()) for key in keys)
