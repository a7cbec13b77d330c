"""`POST /process`: the model card's endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from s1vl_orchestrator.api.bodies import drain, read_body
from s1vl_orchestrator.errors import ApiError
from s1vl_orchestrator.jobs import run_job
from s1vl_orchestrator.loop import StopReason
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.telemetry import tenant_name

router = APIRouter()


@router.post(
    "/process",
    summary="Let the model think about pictures",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ProcessRequest"}}},
        }
    },
)
async def process(request: Request) -> JSONResponse:
    """Run one job. The answer is the last message whose role is assistant."""
    arrived = time.monotonic()
    service: Service = request.app.state.service
    try:
        service.enter()
        try:
            return JSONResponse(await _serve(request, service, arrived))
        finally:
            service.leave()
    except ApiError:
        await drain(request)
        raise


async def _serve(request: Request, service: Service, arrived: float) -> dict[str, Any]:
    # In this order, so that a body is only taken in when there is a place for its job.
    tenant = service.authenticate(request.headers.get("authorization"), request.headers.get("x-api-key"))
    tenant_name.set(tenant.name)
    tenant.check_gate()
    limit = tenant.place.config.limits.deadline_seconds
    await tenant.admission.enter(limit)
    began = time.monotonic()
    try:
        with await read_body(request) as body:
            tenant.check_gate()  # Again: it may have been long in the queue.
            answer = await _unless_disconnected(request, run_job(body, tenant.place, service.tools, arrived))
    finally:
        tenant.admission.leave(time.monotonic() - began)
    if answer["stop_reason"] == StopReason.SANDBOX_UNAVAILABLE:
        tenant.recheck()
    return answer


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Do the work while the client is there. When it hangs up, the work is cancelled and its tidying up awaited."""
    job = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not job.done():
            raise ClientDisconnect
        return job.result()
    finally:
        gone.cancel()
        if not job.done():
            job.cancel()
            await asyncio.wait({job})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
