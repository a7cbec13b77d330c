"""Every error that OpenAI's endpoints share with the others, in OpenAI's form. Theirs alone are in test_chat.py."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from s1vl_orchestrator import plain, workspace
from s1vl_orchestrator.app import create_app
from s1vl_orchestrator.canary import PathReason
from s1vl_orchestrator.errors import ErrorCode
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.sources import FileSource
from tests.component.orchestrator.chatting import PLAIN, check, post
from tests.component.orchestrator.conftest import World, png, send_half_a_body, until
from tests.component.orchestrator.fakes import Fail, served

MODES = pytest.mark.parametrize("mode", [{}, PLAIN, {"stream": True}, {**PLAIN, "stream": True}])


async def test_what_is_not_there(world: World) -> None:
    check(await world.http.get("/v1/nothing"), ErrorCode.NOT_FOUND)
    check(await world.http.get("/v1/chat/completions"), ErrorCode.METHOD_NOT_ALLOWED)


@MODES
async def test_a_volume_that_refuses(world: World, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.files, "write", full)
    check(await post(world, mode), ErrorCode.STORAGE_UNAVAILABLE)
    monkeypatch.undo()
    world.assert_clean()


@MODES
async def test_a_defect(world: World, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "authenticate", None)
    check(await post(world, mode), ErrorCode.INTERNAL_ERROR)


@MODES
async def test_a_silent_engine(world: World, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(plain, "PLAIN_SECONDS", 1.0)
    async with served(silent) as url:
        world.config["engine"]["url"] = url
        world.write_config()
        await until(lambda: world.service.snapshot.config.engine.url == url)  # type: ignore[union-attr]
        check(await post(world, {"deadline_seconds": 1, **mode}), ErrorCode.DEADLINE_EXCEEDED)
    world.assert_clean()


async def test_too_many_requests_a_minute(world: World) -> None:
    world.config["tenants"][0]["limits"].update(requestsPerMinute=1)
    world.write_config()
    await until(lambda: world.service.snapshot.config.tenants[0].limits.requests_per_minute == 1)  # type: ignore[union-attr]
    assert (await post(world, PLAIN)).status_code == 200
    check(await post(world, PLAIN), ErrorCode.RATE_LIMITED)


async def test_a_gate_that_is_closed(world: World) -> None:
    box = world.sandboxes["chem"]
    box.mount = world.folder("bio")
    await until(lambda: world.service.tenants["chem"].status.reason is PathReason.MISMATCH, "the gate to close")
    check(await post(world, {}), ErrorCode.PATHS_INCONSISTENT)


async def test_shutting_down(world: World) -> None:
    await world.service.drain(1)
    check(await post(world, PLAIN), ErrorCode.SHUTTING_DOWN)


async def test_without_a_configuration(tmp_path: Path) -> None:
    service = Service(FileSource(tmp_path / "absent.yaml", tmp_path), poll_seconds=0.05)
    await service.start()
    try:
        async with served(create_app(service)) as url, httpx.AsyncClient(base_url=url) as http:
            check(await http.post("/v1/chat/completions", json={}), ErrorCode.NOT_CONFIGURED)
            check(await http.get("/v1/models"), ErrorCode.NOT_CONFIGURED)
    finally:
        await service.close()


async def test_a_body_that_does_not_come(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    head, body = await send_half_a_body(world, monkeypatch, "/v1/chat/completions")
    error = json.loads(body)["error"]
    assert head.startswith(b"HTTP/1.1 408")
    assert (error["code"], error["type"]) == ("request_timeout", "invalid_request_error")


async def test_an_error_in_a_plain_stream_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first chunk the status is spent: the error is the last event, and there is no [DONE]."""
    monkeypatch.setattr(plain, "PLAIN_SECONDS", 1.0)
    world.put("x.png", png())
    world.engine.script = [Fail(-1)]
    response = await post(world, {**PLAIN, "stream": True})
    assert response.status_code == 200
    *chunks, last = [line for line in response.text.splitlines() if line.startswith("data: ")]
    assert chunks
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
    world.assert_clean()
