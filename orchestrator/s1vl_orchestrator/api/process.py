"""`POST /process`: the model card's endpoint."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request

from s1vl_orchestrator.api.serving import place_for
from s1vl_orchestrator.api.streams import Channel, JobResponse
from s1vl_orchestrator.errors import ApiError
from s1vl_orchestrator.events import Event, EventName
from s1vl_orchestrator.jobs import run_job
from s1vl_orchestrator.loop import StopReason
from s1vl_orchestrator.requests import JobRequest, ProcessRequest, parse_body, to_job
from s1vl_orchestrator.service import Service

router = APIRouter()


@router.post(
    "/process",
    summary="Let the model think about pictures",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ProcessRequest"}}},
        },
        "responses": {
            "200": {
                "description": "The answer, the last message whose role is assistant; or events, with `done` the last.",
                "content": {"application/json": {}, "text/event-stream": {}},
            }
        },
    },
)
async def process(
    request: Request, stream: Annotated[bool, Query(description="Answer with server-sent events.")] = False
) -> JobResponse:
    """Run one job. The answer is the last message whose role is assistant."""
    arrived = time.monotonic()
    service: Service = request.app.state.service

    async def work(channel: Channel) -> dict[str, Any]:
        if stream:
            channel.open(_error_event)
        async with place_for(request, service, channel, gated=True) as (tenant, body), AsyncExitStack() as held:
            await held.enter_async_context(service.tools.preparing)
            job, streamed = await service.workers.run(_read, body)
            if streamed:
                channel.open(_error_event)

            def tell(event: Event) -> None:
                channel.send(event.data, event.name)

            place, shown = tenant.place, channel.opened
            answer = await run_job(job, place, service.tools, arrived, listen=tell, shown=shown, held=held)
            if answer["stop_reason"] == StopReason.SANDBOX_UNAVAILABLE:
                tenant.recheck()
            return answer

    return JobResponse(request, work)


def _read(body: IO[bytes]) -> tuple[JobRequest, bool]:
    with body:
        request = parse_body(body.read(), ProcessRequest)
    return to_job(request), request.stream


def _error_event(error: ApiError) -> tuple[str, dict[str, Any]]:
    return EventName.ERROR, {**error.body(), "status": error.code.status}
