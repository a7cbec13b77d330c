"""The probe of the orchestrators over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from s1vl_operator import orchestrator_probe
from s1vl_operator.orchestrator_probe import OrchestratorProbe

ANSWER = {
    "configVersion": "v",
    "engine": {"ready": True, "message": ""},
    "tenants": [
        {
            "name": "chem",
            "ready": True,
            "reason": "Ready",
            "message": "",
            "paths": {
                "consistent": True,
                "reason": "PathsConsistent",
                "message": "",
                "checkedAt": "2026-01-01T00:00:00Z",
            },
            "jobsRunning": 0,
        }
    ],
}
Serve = Callable[..., Awaitable[OrchestratorProbe]]
POD = {"metadata": {"name": "o"}, "status": {"podIP": "127.0.0.1"}}


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    open_: list[Any] = []

    async def start(
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]], path: str = "/internal/tenants"
    ) -> OrchestratorProbe:
        app = web.Application()
        app.router.add_route("*", path, handler)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        probe = OrchestratorProbe(port=runner.addresses[0][1])
        open_.append((runner, probe))
        return probe

    yield start
    for runner, probe in open_:
        await probe.close()
        await runner.cleanup()


async def test_an_answer(serve: Serve) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(ANSWER)

    probe = await serve(answer)
    first, second = await probe([POD, {"metadata": {"name": "p"}, "status": {}}])
    assert (first.error, first.config_version, first.tenants["chem"].ready) == ("", "v", True)
    assert second.error == "the pod has no address yet"


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (503, "no", "HTTP 503"),
        (200, "<html>", "Expecting value"),
        (200, "[1]", "not in the expected form"),
        (302, "", "HTTP 302"),
    ],
)
async def test_an_answer_that_is_none(serve: Serve, status: int, text: str, message: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers={"Location": "http://127.0.0.1:1/"})

    (report,) = await (await serve(answer))([POD])
    assert message in report.error
    assert report.tenants == {}


async def test_a_pod_that_drips_does_not_hold_the_operator(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setattr(orchestrator_probe, "TIMEOUT_SECONDS", 0.2)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    (report,) = await (await serve(answer))([POD])
    assert "no answer within" in report.error


async def test_nobody_listens() -> None:
    probe = OrchestratorProbe(port=1)
    (report,) = await probe([POD])
    assert report.error
    await probe.close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, '{"message": "code_open: Field required"}', "code_open: Field required"),
        (200, '{"message": ""}', ""),
        (404, '{"detail": "Not Found"}', ""),
        (200, "<html>", None),
        (200, "[]", None),
        (503, "", None),
    ],
)
async def test_an_objection_to_a_protocol(serve: Serve, status: int, body: str, said: str | None) -> None:
    heard: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        heard.append(await request.text())
        return web.Response(status=status, text=body)

    probe = await serve(answer, path="/internal/protocol")
    nowhere = {"metadata": {"name": "gone"}, "status": {"podIP": "127.0.0.2"}}
    assert await probe.objection([nowhere, POD], "name: 图\n") == said
    assert heard == ["name: 图\n"]
    assert await probe.objection([], "name: x\n") is None
