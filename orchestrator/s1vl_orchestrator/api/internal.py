"""The management endpoints: only the operator may reach their port."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from s1vl_orchestrator.protocol.profile import ProfileError, load_profile
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


@router.post("/protocol", summary="Whether a protocol could be used")
async def protocol(request: Request) -> JSONResponse:
    """Check a profile's text, the body; `message` says what is wrong with it, "" when nothing is."""
    text = (await request.body()).decode(errors="replace")
    try:
        # A long text takes a while to parse, and jobs go on.
        await asyncio.to_thread(load_profile, text)
    except ProfileError as error:
        return JSONResponse({"message": str(error)})
    return JSONResponse({"message": ""})
