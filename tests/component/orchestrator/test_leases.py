"""Sandboxes that sleep: a request renews the tenant's Lease, waits, and is served when the sandbox is there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from s1vl_orchestrator import leases
from s1vl_orchestrator.sources import KubernetesSource, SourceError
from tests.component.orchestrator.boxes import FIRST, Boxes, sandbox_of_chem
from tests.component.orchestrator.conftest import World, image, png, text, until
from tests.component.orchestrator.fakes import served
from tests.component.orchestrator.test_chat_refused import MODEL, PLAIN
from tests.component.orchestrator.test_held import held, set_times

LEASE = "demo-tenant-chem"


class Renewals:
    """Takes renewals in place of the API server."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.failure = ""

    async def __call__(self, name: str) -> None:
        self.names.append(name)
        if self.failure:
            raise SourceError(self.failure)


@pytest.fixture
def renewals(world: World, monkeypatch: pytest.MonkeyPatch) -> Renewals:
    renewals = Renewals()
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(leases, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(world.service.tenants["chem"].usage, "_renew", renewals)
    return renewals


@pytest.fixture
async def asleep(world: World, renewals: Renewals) -> AsyncIterator[Boxes]:
    """It has been away for longer than an outage may last."""
    set_times(world, outage=0)
    world.config["tenants"][0]["sandbox"] |= {"lease": LEASE, "idleTimeoutSeconds": 600}
    async with sandbox_of_chem(world) as boxes:
        yield boxes


def ask(world: World, endpoint: str) -> asyncio.Task[httpx.Response]:
    if endpoint == "/process":
        return asyncio.create_task(world.ask(text(), image(png())))
    body = {"model": MODEL, "messages": [{"role": "user", "content": [text(), image(png())]}]}
    return asyncio.create_task(world.http.post(endpoint, json=body))


@pytest.mark.parametrize("endpoint", ["/process", "/v1/chat/completions"])
async def test_a_request_wakes_it(world: World, asleep: Boxes, renewals: Renewals, endpoint: str) -> None:
    waiting = ask(world, endpoint)
    await until(lambda: held(world) == 1, "the request to be held")
    await until(lambda: LEASE in renewals.names, "the renewal")
    assert (await world.tenants())["tenants"][0]["reason"] == "SandboxStarting"
    await asleep.start(FIRST)
    asleep.list(FIRST)
    assert (await waiting).status_code == 200


async def test_plain_requests_let_it_sleep(world: World, asleep: Boxes, renewals: Renewals) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], **PLAIN}
    assert (await world.http.post("/v1/chat/completions", json=body)).status_code == 200
    assert not renewals.names


async def test_it_is_renewed_while_a_job_runs_and_not_after(world: World, asleep: Boxes, renewals: Renewals) -> None:
    await asleep.start(FIRST)
    asleep.list(FIRST)
    await asleep.ready(FIRST)
    assert not renewals.names
    job = await asleep.job()
    renewals.names.clear()
    await until(lambda: len(renewals.names) >= 3, "more renewals")
    asleep.go_on()
    await job
    usage = world.service.tenants["chem"].usage
    assert not usage._users
    await until(lambda: not usage._used.is_set(), "the task to rest")


async def test_a_renewal_that_fails_costs_no_request(
    world: World, asleep: Boxes, renewals: Renewals, caplog: pytest.LogCaptureFixture
) -> None:
    renewals.failure = "the API server is away"
    await asleep.start(FIRST)
    asleep.list(FIRST)
    await asleep.ready(FIRST)
    job = await asleep.job()
    await until(lambda: len(renewals.names) >= 3, "more attempts")
    asleep.go_on()
    await job
    assert len([record for record in caplog.records if "cannot be renewed" in record.message]) == 1
    assert world.service.metrics.registry.get_sample_value("s1vl_lease_failures_total") >= 3  # type: ignore[operator]


async def test_a_lease_is_patched_in_our_name(tmp_path: Path) -> None:
    api = FastAPI()
    seen: list[Any] = []

    @api.patch("/apis/coordination.k8s.io/v1/namespaces/ns/leases/{name}")
    async def patch(name: str, request: Request) -> JSONResponse:
        if name != LEASE:
            return JSONResponse({}, {"absent": 404, "forbidden": 403}.get(name, 500))
        seen.append((request.headers["content-type"], request.headers["authorization"], await request.json()))
        return JSONResponse({})

    token = tmp_path / "token"
    token.write_text("t0ken")
    async with served(api) as url:
        source = KubernetesSource("ns", "demo-orchestrator", httpx.AsyncClient(base_url=url), token)
        await source.renew_lease(LEASE)
        for name, said in (
            ("absent", "no leases/absent"),
            ("forbidden", "not allowed to patch"),
            ("x", "answered 500"),
        ):
            with pytest.raises(SourceError, match=said):
                await source.renew_lease(name)
        await source.close()
    [(content_type, authorization, body)] = seen
    assert (content_type, authorization) == ("application/merge-patch+json", "Bearer t0ken")
    assert body["spec"]["holderIdentity"] == socket.gethostname()
    renewed = datetime.strptime(body["spec"]["renewTime"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - renewed).total_seconds()) < 600
