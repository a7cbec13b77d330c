"""The ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from s1vl_sandbox.api import router
from s1vl_sandbox.api.errors import install_error_handlers
from s1vl_sandbox.guard import Guard
from s1vl_sandbox.server import Server


def create_app(server: Server) -> FastAPI:
    """Build the application around ``server``, which lives as long as the application's lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with server.running():
            yield

    app = FastAPI(title="s1vl sandbox", lifespan=lifespan)
    app.state.server = server
    app.add_middleware(Guard, api_key_sha256=server.settings.api_key_sha256)
    install_error_handlers(app)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The event loop turns."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """A kernel runs code; 503 with the reason otherwise."""
        verdict = await server.readiness.check()
        server.metrics.ready.set(verdict.ready)
        body = {"status": "ok" if verdict.ready else "unavailable", "reason": verdict.reason}
        return JSONResponse(body, 200 if verdict.ready else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    app.include_router(router)
    return app
