"""What every request that runs a job goes through: key, gate, queue, body."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import IO

from fastapi import Request

from s1vl_orchestrator.api.bodies import read_body
from s1vl_orchestrator.api.streams import Channel
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.telemetry import tenant_name
from s1vl_orchestrator.tenants import Tenant

WantsEvents = Callable[[IO[bytes], Tenant], bool]
"""Reads a body and says whether the answer is to be a stream. Raises ApiError for one that must be refused."""


def tenant_of(request: Request, service: Service) -> Tenant:
    """The tenant whose key the request has. Raises ApiError `unauthorized` or `not_configured`."""
    tenant = service.authenticate(request.headers.get("authorization"), request.headers.get("x-api-key"))
    tenant_name.set(tenant.name)
    return tenant


@asynccontextmanager
async def place_for(
    request: Request, service: Service, channel: Channel, wants_events: WantsEvents, *, gated: bool
) -> AsyncIterator[tuple[Tenant, IO[bytes]]]:
    """A place among the tenant's running jobs, and the request's body.

    The body is read while the request waits for its place: a hang-up shows only to who reads. A request that has to
    wait is then looked at already, so that it is refused at once if it must be, and has heartbeats if it wants events.

    Args:
        request: The request; its body is read here.
        service: Everything.
        channel: Told that the body was read, and opened for a request that waits and wants events.
        wants_events: Called in a thread.
        gated: The job needs the tenant's sandbox.

    Raises:
        ApiError: For a request that may not come in.
    """
    with service.serving(channel.stop):
        tenant = tenant_of(request, service)
        if gated:
            tenant.check_gate()
        with tenant.admission.place() as place, await read_body(request, place.hold) as body:
            channel.body_read.set()
            if not place.given:
                async with service.tools.preparing:
                    if await service.workers.run(wants_events, body, tenant):
                        channel.open()
                body.seek(0)
                await place.wait(tenant.place.config.limits.deadline_seconds)
                if gated:
                    tenant.check_gate()  # Again: it may have been long in the queue.
            yield tenant, body
