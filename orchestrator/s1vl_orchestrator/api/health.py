"""Health, readiness and metrics, on both ports."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from s1vl_orchestrator.api.openapi import answer, errors
from s1vl_orchestrator.service import Service

router = APIRouter(tags=["Health"], responses=errors())


class Readiness(BaseModel):
    """Whether requests may be sent here, and what is wrong with the configuration or why not."""

    ready: bool
    message: str


MODELS: tuple[type[BaseModel], ...] = (Readiness,)
_NOT_READY = answer("Shutting down, or without a configuration.", Readiness)


@router.get(
    "/healthz",
    operation_id="healthz",
    summary="The process is alive",
    response_class=PlainTextResponse,
    responses={200: {"description": "It is.", "content": {"text/plain": {"example": "ok"}}}},
)
async def healthz() -> PlainTextResponse:
    """Answer 200: the event loop turns."""
    return PlainTextResponse("ok")


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Requests may be sent here",
    responses={200: answer("They may.", Readiness, {"ready": True, "message": ""}), 503: _NOT_READY},
)
async def readyz(request: Request) -> JSONResponse:
    """200 once a configuration is in use and until shutdown begins.

    Engine and sandboxes are not part of it: without them requests still get their documented errors, from here.
    """
    service: Service = request.app.state.service
    if service.leaving:
        return JSONResponse({"ready": False, "message": "shutting down"}, 503)
    if service.snapshot is None:
        return JSONResponse({"ready": False, "message": service.config_problem}, 503)
    return JSONResponse({"ready": True, "message": service.config_problem})


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses={200: {"description": "In Prometheus' text format; the names begin with `s1vl_`."}},
)
async def metrics(request: Request) -> Response:
    """All series of the orchestrator."""
    service: Service = request.app.state.service
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
