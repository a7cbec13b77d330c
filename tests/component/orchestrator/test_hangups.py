"""Clients that hang up, requests that wait, and a shutdown that does not wait for ever."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from PIL import Image

from s1vl_orchestrator import admission
from s1vl_orchestrator.api import streams
from s1vl_orchestrator.errors import ErrorCode
from tests.component.orchestrator.chatting import MODEL, PLAIN, user
from tests.component.orchestrator.conftest import World, final, image, png, text, until
from tests.component.orchestrator.fakes import Fail


def noise(side: int = 400) -> bytes:
    """A picture that does not get smaller: its request is larger than what a server reads ahead by itself."""
    import io

    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), random.Random(1).randbytes(side * side * 3)).save(out, "PNG")
    return out.getvalue()


def request(endpoint: str, picture: bytes, **more: Any) -> dict[str, Any]:
    if endpoint == "/process":
        return {"messages": [text(), image(picture)], **more}
    return {"model": MODEL, "messages": user(image(picture), text()), **more}


WAYS = pytest.mark.parametrize(
    ("endpoint", "more"),
    [("/process", {}), ("/v1/chat/completions", {}), ("/v1/chat/completions", PLAIN)],
    ids=["process", "chat", "plain"],
)


@asynccontextmanager
async def one_at_a_time(world: World, queued: int = 4) -> AsyncIterator[None]:
    """The tenant's only place is taken."""
    world.config["tenants"][0]["limits"].update(concurrentRequests=1, queuedRequests=queued)
    world.write_config()
    await until(lambda: world.service.snapshot.config.tenants[0].limits.queued_requests == queued)  # type: ignore[union-attr]
    world.engine.script = [Fail(-1)]
    running = asyncio.create_task(world.ask(text(), image(png())))
    await until(lambda: world.engine.requests, "the first job to run")
    try:
        yield
    finally:
        running.cancel()
        await until(lambda: not world.service.active, "all places to be free")


@WAYS
@pytest.mark.parametrize("picture", [png(), noise()], ids=["small", "large"])
async def test_a_hang_up_in_the_queue_is_noticed_there(
    world: World, endpoint: str, more: dict[str, Any], picture: bytes
) -> None:
    queue = world.service.tenants["chem"].admission
    async with one_at_a_time(world):
        waiting = [asyncio.create_task(world.http.post(endpoint, json=request(endpoint, picture, **more)))]
        await until(lambda: queue.waiting == 1, "the request to be queued")
        waiting += [asyncio.create_task(world.http.post(endpoint, json=request(endpoint, picture, **more)))]
        await until(lambda: queue.waiting == 2, "the other to be queued")
        waiting[0].cancel()
        await until(lambda: queue.waiting == 1, "the place in the queue to be free")
        assert queue.running == 1
        assert len(world.engine.requests) == 1
        waiting[1].cancel()
        await until(lambda: queue.waiting == 0, "the queue to be empty")
    assert len(world.engine.requests) == 1
    world.assert_clean()


async def test_a_hang_up_in_the_middle_of_the_body(world: World) -> None:
    queue = world.service.tenants["chem"].admission
    host, port = world.url.removeprefix("http://").split(":")
    async with one_at_a_time(world):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /process HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b" " * 300_000)
        await until(lambda: queue.waiting == 1, "the request to be queued")
        writer.close()
        await until(lambda: queue.waiting == 0, "the place in the queue to be free")


@WAYS
async def test_what_must_be_refused_does_not_wait(world: World, endpoint: str, more: dict[str, Any]) -> None:
    bad = [("max_tokens" if "chat" in endpoint else "max_turns", 0), ("messages", [])]
    async with one_at_a_time(world):
        for name, value in bad:
            response = await world.http.post(endpoint, json={**request(endpoint, png(), **more), name: value})
            assert response.json()["error"]["code"] == "invalid_request"


@WAYS
async def test_heartbeats_in_the_queue(
    world: World, endpoint: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    queue = world.service.tenants["chem"].admission
    async with one_at_a_time(world):
        body = request(endpoint, png(), stream=True, **more)
        async with world.http.stream("POST", endpoint, json=body) as response:
            assert response.status_code == 200
            lines = response.aiter_lines()
            assert await anext(lines) == ": keep-alive"
            assert (queue.running, queue.waiting) == (1, 1)


async def test_after_the_queue_comes_the_answer(world: World) -> None:
    async with one_at_a_time(world):
        waiting = asyncio.create_task(world.answer(text(), image(noise()), stream=False))
        await until(lambda: world.service.tenants["chem"].admission.waiting, "the request to be queued")
        world.engine.script = [final("red")]
    assert (await waiting)["answer"] == "red"


async def test_bodies_in_the_queue_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_WAITING_BYTES", 500_000)
    async with one_at_a_time(world):
        response = await world.ask(text(), image(noise()))
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (429, ErrorCode.QUEUE_FULL)
        assert int(response.headers["retry-after"]) >= 1
        assert error["details"]["limit_bytes"] == 500_000
        small = asyncio.create_task(world.ask(text(), image(png())))
        await until(lambda: world.service.tenants["chem"].admission.waiting == 1, "a small one to be queued")
        small.cancel()


@WAYS
async def test_a_hang_up_is_logged_with_its_time(
    world: World, endpoint: str, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "s1vl_orchestrator")
    world.engine.script = [Fail(-1)]
    asking = asyncio.create_task(world.http.post(endpoint, json=request(endpoint, png(), **more)))
    await until(lambda: world.engine.requests, "the job to run")
    asking.cancel()
    await until(lambda: not world.service.active and world.engine.aborted, "the job to end")
    await until(lambda: [r for r in caplog.records if r.message.startswith("the client hung up")], "the log")
    [record] = [record for record in caplog.records if record.message.startswith("the client hung up")]
    assert record.__dict__["seconds"] >= 0
    world.assert_clean()


@WAYS
@pytest.mark.parametrize("stream", [False, True])
async def test_what_takes_longer_than_the_drain_is_ended(
    world: World, endpoint: str, more: dict[str, Any], stream: bool
) -> None:
    world.engine.script = [Fail(-1)]
    body = request(endpoint, png(), stream=stream, **more)
    asking = asyncio.create_task(world.http.post(endpoint, json=body))
    await until(lambda: world.engine.requests, "the job to run")
    await world.service.drain(0.1)
    assert not world.service.active
    response = await asking
    if stream:
        assert response.status_code == 200
        last = [line for line in response.text.splitlines() if line.startswith("data: ")][-1]
        error = json.loads(last.removeprefix("data: "))["error"]
    else:
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        error = response.json()["error"]
    assert error["code"] == "shutting_down"
    await until(lambda: world.engine.aborted, "the engine's request to be aborted")
    world.assert_clean()


async def test_a_queued_request_is_ended_too(world: World) -> None:
    async with one_at_a_time(world):
        waiting = asyncio.create_task(world.ask(text(), image(png())))
        await until(lambda: world.service.tenants["chem"].admission.waiting, "the request to be queued")
        await world.service.drain(0.1)
        refused: httpx.Response = await waiting
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
