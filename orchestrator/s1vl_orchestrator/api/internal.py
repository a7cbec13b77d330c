"""The management endpoints: only the operator may reach their port."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from s1vl_orchestrator.api.openapi import answer, errors
from s1vl_orchestrator.canary import PathReason
from s1vl_orchestrator.protocol.profile import ProfileError, load_profile
from s1vl_orchestrator.service import Service

router = APIRouter(prefix="/internal", tags=["Management"], responses=errors())


class PodState(BaseModel):
    """One engine pod as this instance sees it: `seats` are its jobs and requests that are placed there.

    A pod that is not `listed` only finishes requests. An `avoided` one gets new jobs only where all are.
    """

    address: str
    version: str
    requests: int = Field(ge=0)
    seats: int = Field(ge=0)
    listed: bool
    avoided: bool
    reason: str


class EngineState(BaseModel):
    """Whether the engine answers, why not, and its pods."""

    ready: bool
    message: str
    pods: list[PodState]


class PathsState(BaseModel):
    """What the tenant's last path canary said; `consistent` is null when nothing is known."""

    consistent: bool | None
    reason: PathReason
    message: str
    checkedAt: datetime | None  # noqa: N815  (camelCase is the form of this document)


class SandboxState(BaseModel):
    """One pod of a tenant's sandbox: `sessions` are those of this instance's jobs; only `listed` pods get new ones."""

    address: str
    sessions: int = Field(ge=0)
    listed: bool
    consistent: bool | None
    reason: PathReason
    message: str


class TenantState(BaseModel):
    """One tenant."""

    name: str
    ready: bool
    reason: Literal["Ready", "PathsInconsistent", "SandboxStarting", "KeyMissing", "NotChecked"]
    message: str
    paths: PathsState
    sandboxes: list[SandboxState]
    jobsRunning: int = Field(ge=0)  # noqa: N815  (as above)


class State(BaseModel):
    """The configuration in use, by the SHA-256 of its text, and how all that it names fares.

    `message` says why the latest configuration could not be taken; `refused` that it is not valid.
    """

    configVersion: str = Field(pattern="^([0-9a-f]{64})?$")  # noqa: N815  (as above)
    message: str
    refused: bool
    engine: EngineState
    tenants: list[TenantState]


class Rechecked(BaseModel):
    """How many canaries are on their way."""

    tenants: int = Field(ge=0)


class ProtocolVerdict(BaseModel):
    """What is wrong with a protocol; empty when nothing is."""

    message: str


MODELS: tuple[type[BaseModel], ...] = (State, Rechecked, ProtocolVerdict)
_PROTOCOL = {"requestBody": {"required": False, "content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get(
    "/tenants",
    operation_id="tenants",
    summary="How the tenants fare",
    responses={200: answer("How they fare.", State)},
)
async def tenants(request: Request) -> JSONResponse:
    """The configuration in use, the engine, and each tenant with its last path canary."""
    service: Service = request.app.state.service
    return JSONResponse(service.describe())


@router.post(
    "/tenants/recheck",
    operation_id="recheckTenants",
    status_code=202,
    summary="Send all canaries now",
    responses={202: answer("They are on their way.", Rechecked, {"tenants": 2})},
)
async def recheck(request: Request) -> JSONResponse:
    """Start a canary for every tenant; the results appear in `GET /internal/tenants`."""
    service: Service = request.app.state.service
    for tenant in service.tenants.values():
        tenant.recheck()
    return JSONResponse({"tenants": len(service.tenants)}, 202)


@router.post(
    "/protocol",
    operation_id="checkProtocol",
    summary="Whether a protocol could be used",
    openapi_extra=_PROTOCOL,
    responses={200: answer("The verdict.", ProtocolVerdict, {"message": ""})},
)
async def protocol(request: Request) -> JSONResponse:
    """Check a profile's text, the body; `message` says what is wrong with it, "" when nothing is."""
    text = (await request.body()).decode(errors="replace")
    try:
        # A long text takes a while to parse, and jobs go on.
        await asyncio.to_thread(load_profile, text)
    except ProfileError as error:
        return JSONResponse({"message": str(error)})
    return JSONResponse({"message": ""})
