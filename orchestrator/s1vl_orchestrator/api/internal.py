"""The management endpoints: only the operator may reach their port."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from s1vl_orchestrator.service import Service

router = APIRouter(prefix="/internal")


@router.get("/tenants", summary="How the tenants fare")
async def tenants(request: Request) -> JSONResponse:
    """The configuration in use, the engine, and each tenant with its last path canary."""
    service: Service = request.app.state.service
    return JSONResponse(service.describe())


@router.post("/tenants/recheck", status_code=202, summary="Send all canaries now")
async def recheck(request: Request) -> JSONResponse:
    """Start a canary for every tenant; the results appear in `GET /internal/tenants`."""
    service: Service = request.app.state.service
    for tenant in service.tenants.values():
        tenant.recheck()
    return JSONResponse({"tenants": len(service.tenants)}, 202)
