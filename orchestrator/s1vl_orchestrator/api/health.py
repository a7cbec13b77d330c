"""Health, readiness and metrics, on both ports."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from s1vl_orchestrator.service import Service

router = APIRouter()


@router.get("/healthz", summary="The process is alive")
async def healthz() -> PlainTextResponse:
    """Answer 200: the event loop turns."""
    return PlainTextResponse("ok")


@router.get("/readyz", summary="Requests may be sent here")
async def readyz(request: Request) -> JSONResponse:
    """200 once a configuration is in use and until shutdown begins.

    Engine and sandboxes are not part of it: without them requests still get their documented errors, from here.
    """
    service: Service = request.app.state.service
    if service.draining:
        return JSONResponse({"ready": False, "message": "shutting down"}, 503)
    if service.snapshot is None:
        return JSONResponse({"ready": False, "message": service.config_problem}, 503)
    return JSONResponse({"ready": True, "message": service.config_problem})


@router.get("/metrics", summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """All series of the orchestrator."""
    service: Service = request.app.state.service
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)
