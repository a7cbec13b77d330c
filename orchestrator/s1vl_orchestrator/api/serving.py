"""What every request that runs a job goes through: key, gate, queue, body."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO

from fastapi import Request

from s1vl_orchestrator.api.bodies import read_body
from s1vl_orchestrator.api.streams import Channel
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.telemetry import tenant_name
from s1vl_orchestrator.tenants import Tenant


def tenant_of(request: Request, service: Service) -> Tenant:
    """The tenant whose key the request has. Raises ApiError `unauthorized` or `not_configured`."""
    tenant = service.authenticate(request.headers.get("authorization"), request.headers.get("x-api-key"))
    tenant_name.set(tenant.name)
    return tenant


@asynccontextmanager
async def place_for(
    request: Request, service: Service, channel: Channel, *, gated: bool
) -> AsyncIterator[tuple[Tenant, IO[bytes]]]:
    """A place among the tenant's running jobs, and the request's body.

    In this order, so that a body is only taken in when there is a place for its job.

    Args:
        request: The request; its body is read here.
        service: Everything.
        channel: Told that the body was read.
        gated: The job needs the tenant's sandbox.

    Raises:
        ApiError: For a request that may not come in.
    """
    service.enter()
    try:
        tenant = tenant_of(request, service)
        if gated:
            tenant.check_gate()
        await tenant.admission.enter(tenant.place.config.limits.deadline_seconds)
        began = time.monotonic()
        try:
            with await read_body(request) as body:
                channel.body_read.set()
                if gated:
                    tenant.check_gate()  # Again: it may have been long in the queue.
                yield tenant, body
        finally:
            tenant.admission.leave(time.monotonic() - began)
    finally:
        service.leave()
