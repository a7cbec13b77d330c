"""One table: what provokes each error over HTTP, at every endpoint that documents it. And every reason to stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from s1vl_orchestrator import plain, workspace
from s1vl_orchestrator.api import bodies
from s1vl_orchestrator.canary import PathReason
from s1vl_orchestrator.errors import CATALOGUE, ErrorCode
from s1vl_orchestrator.loop import StopReason
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.sources import SourceError, Texts
from tests.component.orchestrator.chatting import MODEL, PLAIN
from tests.component.orchestrator.conftest import World, code, final, image, png, send_half_a_body, text, until
from tests.component.orchestrator.fakes import Fail

Setup = Callable[[World, pytest.MonkeyPatch], Awaitable[None]]
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "process": ("/process", {}),
    "thinking": ("/v1/chat/completions", {}),
    "plain": ("/v1/chat/completions", PLAIN),
}


async def nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No preparation."""


def engine(step: Fail) -> Setup:
    async def setup(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.engine.script = [step]

    return setup


def limits(**values: int) -> Setup:
    async def setup(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        before = world.service.snapshot
        world.config["tenants"][0]["limits"].update(values)
        world.write_config()
        await until(lambda: world.service.snapshot is not before, "the new limits")

    return setup


async def one_a_minute(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await limits(requestsPerMinute=1)(world, monkeypatch)
    assert (await world.ask(text(), image(png()))).status_code == 200


async def full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await limits(concurrentRequests=1, queuedRequests=0)(world, monkeypatch)
    world.engine.script = [Fail(-1)]
    running = asyncio.create_task(world.ask(text(), image(png())))
    await until(lambda: world.engine.requests, "the first job to run")
    world.running = running  # type: ignore[attr-defined]  # kept, and ended with the loop


async def small_bodies(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 50)


async def no_space(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.files, "write", refuse)


async def defect(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "authenticate", None)


async def unconfigured(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.service._source = FailingSource()  # type: ignore[assignment]
    # A round that had begun with the other source would bring the configuration back.
    await until(lambda: world.service.config_problem, "the source to fail")
    world.service.snapshot = None


async def sandbox_gone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandboxes["chem"].broken = True
    await until(lambda: world.service.tenants["chem"].status.reason is PathReason.UNREACHABLE, "the gate to close")


async def wrong_mount(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandboxes["chem"].mount = world.folder("bio")
    world.service.tenants["chem"].recheck()
    await until(lambda: world.service.tenants["chem"].status.reason is PathReason.MISMATCH, "the gate to close")


async def draining(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.service.drain(1)


async def silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "PLAIN_SECONDS", 1.0)

    async def never(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(world.engine, "_stream", lambda *_: _silence())
    world.engine.script = [Fail(-1)]


async def _silence() -> Any:
    await asyncio.sleep(3600)
    yield b""


class FailingSource:
    """No configuration is to be had."""

    async def texts(self) -> Texts:
        raise SourceError("there is none")

    async def secret(self, *_: Any) -> None:
        return None

    async def close(self) -> None:
        return None


@dataclass(frozen=True)
class Case:
    """How to provoke an error: the preparation, and what is sent."""

    setup: Setup = nothing
    parts: list[Any] = field(default_factory=lambda: [text(), image(png())])
    more: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    ways: tuple[str, ...] = ("process", "thinking", "plain")


ABSENT = {"type": "image_url", "image_url": {"url": "/data/images/absent.png"}}
CHAT = ("thinking", "plain")
GATED = ("process", "thinking")
CASES: dict[ErrorCode, Case] = {
    ErrorCode.INVALID_REQUEST: Case(parts=[{"type": "video_url"}]),
    ErrorCode.NOT_SUPPORTED: Case(more={"cache_salt": "mine"}, ways=CHAT),
    ErrorCode.NO_IMAGE: Case(parts=[text()], more={"thinking_with_images": True}, ways=GATED),
    ErrorCode.INVALID_IMAGE: Case(parts=[text(), image(b"no picture")]),
    ErrorCode.TOO_MANY_IMAGES: Case(parts=[text(), *[image(png())] * 16]),
    ErrorCode.PROMPT_TOO_LONG: Case(parts=[text("x" * 400_001), image(png())]),
    ErrorCode.UNAUTHORIZED: Case(headers={"X-API-Key": "wrong"}),
    ErrorCode.MODEL_NOT_FOUND: Case(more={"model": "gpt-4o"}, ways=CHAT),
    ErrorCode.IMAGE_NOT_FOUND: Case(parts=[text(), ABSENT]),
    ErrorCode.BODY_TOO_LARGE: Case(small_bodies),
    ErrorCode.RATE_LIMITED: Case(one_a_minute),
    ErrorCode.QUEUE_FULL: Case(full),
    ErrorCode.INTERNAL_ERROR: Case(defect),
    ErrorCode.STORAGE_UNAVAILABLE: Case(no_space),
    ErrorCode.NOT_CONFIGURED: Case(unconfigured),
    ErrorCode.ENGINE_UNAVAILABLE: Case(engine(Fail(500, "boom"))),
    ErrorCode.SANDBOX_STARTING: Case(sandbox_gone, ways=GATED),
    ErrorCode.PATHS_INCONSISTENT: Case(wrong_mount, ways=GATED),
    ErrorCode.SHUTTING_DOWN: Case(draining),
    ErrorCode.DEADLINE_EXCEEDED: Case(silent, more={"deadline_seconds": 1}),
}
RAW = {ErrorCode.REQUEST_TIMEOUT}
"""Provoked by half a body, below."""
ELSEWHERE = {ErrorCode.NOT_FOUND, ErrorCode.METHOD_NOT_ALLOWED}

TABLE = [(code, way) for code, case in CASES.items() for way in case.ways]


def check(error: dict[str, Any], code: ErrorCode, way: str, response: httpx.Response) -> None:
    assert (response.status_code, error["code"]) == (code.status, code.value), response.text
    assert error["message"]
    assert ("type" in error) == (way != "process")
    if code.status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    if code.status == 401:
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("code", "way"), TABLE, ids=[f"{code}-{way}" for code, way in TABLE])
async def test_an_error(world: World, code: ErrorCode, way: str, stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[code]
    path, mode = WAYS[way]
    body: dict[str, Any] = {"messages": case.parts, "stream": stream}
    if way != "process":
        body |= {"model": MODEL, "messages": [{"role": "user", "content": case.parts}], **mode}
    await case.setup(world, monkeypatch)
    response = await world.http.post(path, json={**body, **case.more}, headers=case.headers)
    check(response.json()["error"], code, way, response)
    monkeypatch.undo()
    if code is not ErrorCode.QUEUE_FULL and code is not ErrorCode.RATE_LIMITED:
        world.assert_clean()


@pytest.mark.parametrize("path", ["/process", "/v1/chat/completions"])
async def test_half_a_body(world: World, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head, body = await send_half_a_body(world, monkeypatch, path)
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == ErrorCode.REQUEST_TIMEOUT


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_what_is_not_there(world: World, prefix: str) -> None:
    for method, path, expected in (
        ("GET", f"{prefix}/nothing", ErrorCode.NOT_FOUND),
        ("GET", "/v1/chat/completions" if prefix else "/process", ErrorCode.METHOD_NOT_ALLOWED),
        ("TRACE", "/v1/models" if prefix else "/healthz", ErrorCode.METHOD_NOT_ALLOWED),
    ):
        response = await world.http.request(method, path)
        assert (response.status_code, response.json()["error"]["code"]) == (expected.status, expected.value)
        if expected is ErrorCode.METHOD_NOT_ALLOWED:
            assert response.headers["allow"]


def test_every_code_is_provoked() -> None:
    assert set(CATALOGUE) == set(ErrorCode) == set(CASES) | RAW | ELSEWHERE


async def test_what_is_documented_is_provoked_and_the_other_way_round(world: World) -> None:
    paths = (await world.http.get("/openapi.json")).json()["paths"]
    for path in ("/process", "/v1/chat/completions"):
        documented = {
            example
            for answer in paths[path]["post"]["responses"].values()
            for example in answer["content"]["application/json"].get("examples", {})
        }
        provoked = {code.value for code, way in TABLE if WAYS[way][0] == path} | {code.value for code in RAW}
        assert documented == provoked, path


def broken_sandbox(world: World) -> list[Any]:
    def step(_: list[dict[str, Any]]) -> str:
        world.sandboxes["chem"].broken = True
        return code("print(1)")

    return [step, final("blind")]


FULL = "This model's maximum context length is 32768 tokens. However, your prompt contains at least 32769 input tokens."
STOPS: dict[StopReason, tuple[Callable[[World], list[Any]], dict[str, Any]]] = {
    StopReason.ANSWER: (lambda _: [final("x")], {}),
    StopReason.MAX_TURNS: (lambda _: [code("print(1)"), final("x")], {"max_turns": 1}),
    StopReason.DEADLINE: (lambda _: [Fail(-1), final("x")], {"deadline_seconds": 3}),
    StopReason.CONTEXT_FULL: (lambda _: [code("print(1)"), Fail(400, FULL), final("x")], {}),
    StopReason.ENGINE_ERROR: (lambda _: ["An idea.\n<code>\nprint(1)\n</code>", Fail(500, "boom")], {}),
    StopReason.SANDBOX_UNAVAILABLE: (broken_sandbox, {}),
}


@pytest.mark.parametrize("reason", StopReason)
async def test_a_reason_to_stop(world: World, reason: StopReason) -> None:
    script, more = STOPS[reason]
    world.engine.script = script(world)
    result = await world.answer(text(), image(png()), **more)
    assert result["stop_reason"] == reason
    assert result["messages"][-1]["role"] == "assistant"
