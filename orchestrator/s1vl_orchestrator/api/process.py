"""`POST /process`: the model card's endpoint."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from s1vl_orchestrator.api.openapi import (
    ELSEWHERE,
    EMBEDDED,
    KEY_NEEDED,
    Error,
    answer,
    body,
    errors,
    event,
    events,
    ref,
)
from s1vl_orchestrator.api.process_answers import (
    AnswerDelta,
    CodeEvent,
    ErrorEvent,
    ExecResult,
    ExecStart,
    ImageEvent,
    ProcessAnswer,
    ReasoningDelta,
    TurnStart,
)
from s1vl_orchestrator.api.serving import Wants, place_for
from s1vl_orchestrator.api.streams import Channel, JobResponse
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.events import Event, EventName
from s1vl_orchestrator.jobs import run_job
from s1vl_orchestrator.loop import StopReason
from s1vl_orchestrator.prepare import time_limit
from s1vl_orchestrator.requests import JobRequest, ProcessRequest, parse_body, to_job
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.tenants import Tenant

router = APIRouter(tags=["Thinking with images"])

EVENTS: dict[EventName, type[BaseModel]] = {
    EventName.TURN_START: TurnStart,
    EventName.REASONING_DELTA: ReasoningDelta,
    EventName.CODE: CodeEvent,
    EventName.EXEC_START: ExecStart,
    EventName.EXEC_RESULT: ExecResult,
    EventName.IMAGE: ImageEvent,
    EventName.ANSWER_DELTA: AnswerDelta,
    EventName.DONE: ProcessAnswer,
    EventName.ERROR: ErrorEvent,
}
"""The form of each event's data."""
MODELS: tuple[type[BaseModel], ...] = (ProcessRequest, Error, *EVENTS.values())

_BODY = body(
    ProcessRequest,
    {
        "A picture by its path": {
            "messages": [{"type": "text", "text": "Which gas does the left panel show?"}],
            "image_path_list": ["/data/images/panel.png"],
        },
        "An embedded picture": {"messages": [{"type": "text", "text": "Which colour is it?"}, EMBEDDED]},
        "A conversation": {
            "messages": [
                {"role": "system", "content": "Answer in one word."},
                {"role": "user", "content": [{"type": "text", "text": "Which colour is it?"}, EMBEDDED]},
            ],
            "max_turns": 4,
            "deadline_seconds": 120,
            "metadata": {"question": 7},
        },
    },
)
_ANSWER = answer(
    "The answer is the last message, whose role is always `assistant`. With `stream`: events, the last of which is "
    "`done`, or `error` where the stream had begun.",
    ProcessAnswer,
)
_ANSWER["content"] |= events(
    {"oneOf": [event(ref(model), name) for name, model in EVENTS.items()]},
    'event: turn.start\ndata: {"turn":1}\n\nevent: reasoning.delta\ndata: {"turn":1,"text":"The label is"}\n\n',
)
_ERRORS = errors(*set(ErrorCode) - {ErrorCode.NOT_SUPPORTED, ErrorCode.MODEL_NOT_FOUND, *ELSEWHERE})


@router.post(
    "/process",
    operation_id="process",
    summary="Let the model think about pictures",
    openapi_extra={**_BODY, "security": KEY_NEEDED},
    responses={200: _ANSWER, **_ERRORS},
)
async def process(
    request: Request, stream: Annotated[bool, Query(description="Answer with server-sent events.")] = False
) -> JobResponse:
    """Run one job. The answer is the last message whose role is assistant."""
    arrived = time.monotonic()
    service: Service = request.app.state.service

    async def work(channel: Channel) -> dict[str, Any]:
        if stream:
            channel.open()
        async with (
            place_for(request, service, channel, _look, arrived) as (tenant, body),
            AsyncExitStack() as held,
        ):
            await held.enter_async_context(service.tools.preparing)
            with body:
                job, streamed = await service.workers.run(_read, body)
            if streamed:
                channel.open()

            def tell(event: Event) -> None:
                channel.send(event.data, event.name)

            place, shown = tenant.place, channel.opened
            with tenant.usage.use():
                answer = await run_job(job, place, service.tools, arrived, listen=tell, shown=shown, held=held)
            if answer["stop_reason"] == StopReason.SANDBOX_UNAVAILABLE:
                tenant.recheck()
            return answer

    return JobResponse(request, work, _error_event)


def _read(body: IO[bytes]) -> tuple[JobRequest, bool]:
    request = parse_body(body.read(), ProcessRequest)
    return to_job(request), request.stream


def _look(body: IO[bytes], tenant: Tenant) -> Wants:
    job, streamed = _read(body)
    return Wants(streamed, sandbox=True, seconds=time_limit(job.deadline_seconds, tenant.place.config))


def _error_event(error: ApiError) -> tuple[str, dict[str, Any]]:
    return EventName.ERROR, {**error.body(), "status": error.code.status}
