"""What every request that runs a job goes through: key, body, queue, gate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import IO

from fastapi import Request

from s1vl_orchestrator.api.bodies import read_body
from s1vl_orchestrator.api.streams import Channel
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.telemetry import tenant_name
from s1vl_orchestrator.tenants import Tenant


@dataclass(frozen=True)
class Wants:
    """What a request that has to wait is waiting for.

    Attributes:
        events: The answer is to be a stream.
        sandbox: The job needs the tenant's sandbox.
        seconds: From its arrival to its answer.
    """

    events: bool
    sandbox: bool
    seconds: float


Look = Callable[[IO[bytes], Tenant], Wants]
"""Reads a body. Raises ApiError for one that must be refused."""


def tenant_of(request: Request, service: Service) -> Tenant:
    """The tenant whose key the request has. Raises ApiError `unauthorized` or `not_configured`."""
    tenant = service.authenticate(request.headers.get("authorization"), request.headers.get("x-api-key"))
    tenant_name.set(tenant.name)
    return tenant


@asynccontextmanager
async def place_for(
    request: Request, service: Service, channel: Channel, look: Look, arrived: float
) -> AsyncIterator[tuple[Tenant, IO[bytes]]]:
    """A place among the tenant's running jobs, and the request's body.

    The body is read while the request waits for its place, or for the sandbox: a hang-up shows only to who reads. A
    request that has to wait is looked at already, so that it is refused at once if it must be, and has heartbeats if
    it wants events.

    Args:
        request: The request; its body is read here.
        service: Everything.
        channel: Told that the body was read, and opened for a request that waits and wants events.
        look: Called in a thread.
        arrived: `time.monotonic()` of the request's arrival.

    Raises:
        ApiError: For a request that may not come in.
    """
    with service.serving(channel.stop):
        tenant = tenant_of(request, service)
        with tenant.admission.place() as place, await read_body(request, place.hold) as body:
            channel.body_read.set()
            if not (place.given and tenant.place.sandboxes.ready):
                async with service.tools.preparing:
                    wants = await service.workers.run(look, body, tenant)
                body.seek(0)
                with tenant.usage.use() if wants.sandbox else nullcontext():
                    if wants.sandbox:
                        tenant.check_gate()
                    if wants.events:
                        channel.open()
                    await place.wait(tenant.place.config.limits.deadline_seconds)
                    if wants.sandbox:
                        await tenant.pass_gate(arrived + wants.seconds)
            yield tenant, body
