"""Requests that come while the tenant's sandbox is away: they wait for it, and not in vain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from s1vl_orchestrator.api import streams
from tests.component.orchestrator.boxes import FIRST, HOST, SECOND, Boxes, sandbox_of_chem, waits
from tests.component.orchestrator.conftest import World, code, final, image, png, results, text, until
from tests.component.orchestrator.test_hangups import noise, request

ENDPOINTS = pytest.mark.parametrize("endpoint", ["/process", "/v1/chat/completions"])


def set_times(world: World, **times: float) -> None:
    watching = world.service._watching
    watching.times = replace(watching.times, **times)


@pytest.fixture
async def boxes(world: World) -> AsyncIterator[Boxes]:
    set_times(world, outage=600)
    async with sandbox_of_chem(world) as boxes:
        yield boxes


def held(world: World) -> int:
    return world.service.tenants["chem"].place.sandboxes.waiting


def post(world: World, endpoint: str, **more: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(world.http.post(endpoint, json=request(endpoint, png(), **more)))


@ENDPOINTS
async def test_they_are_answered_when_the_first_canary_comes_back(world: World, boxes: Boxes, endpoint: str) -> None:
    # Nothing but the requests themselves makes anybody look.
    world.service._poll_seconds = 600
    set_times(world, retry_first=600, retry_most=600)
    waiting = [post(world, endpoint) for _ in range(3)]
    await until(lambda: held(world) == 3, "the requests to be held")
    assert 's1vl_requests_held{tenant="chem"} 3.0' in (await world.http.get("/metrics")).text
    boxes.list(FIRST)
    await until(lambda: FIRST in boxes.all(), "the pod to be found")
    await until(lambda: boxes.reason(FIRST) == "SandboxUnreachable", "a pod that does not listen yet")
    await boxes.start(FIRST)
    assert [(await task).status_code for task in waiting] == [200, 200, 200]
    assert held(world) == 0


@ENDPOINTS
@pytest.mark.parametrize("picture", [png(), noise()], ids=["small", "large"])
async def test_who_hangs_up_leaves_at_once(world: World, boxes: Boxes, endpoint: str, picture: bytes) -> None:
    task = asyncio.create_task(world.http.post(endpoint, json=request(endpoint, picture)))
    await until(lambda: held(world) == 1, "the request to be held")
    task.cancel()
    await until(lambda: held(world) == 0 and world.service.active == 0, "its place to be free")
    assert not world.engine.requests
    world.assert_clean()


@ENDPOINTS
async def test_what_must_be_refused_is_not_held(world: World, boxes: Boxes, endpoint: str) -> None:
    response = await post(world, endpoint, messages=[])
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")


@ENDPOINTS
async def test_heartbeats_while_held(
    world: World, boxes: Boxes, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    body = request(endpoint, png(), stream=True)
    async with world.http.stream("POST", endpoint, json=body) as response:
        assert response.status_code == 200
        lines = response.aiter_lines()
        assert await anext(lines) == ": keep-alive"
        assert held(world) == 1
        await boxes.start(FIRST)
        boxes.list(FIRST)
        rest = [line async for line in lines]
    assert any("red" in line for line in rest)


@ENDPOINTS
@pytest.mark.parametrize("stream", [False, True])
async def test_the_requests_own_deadline_counts(world: World, boxes: Boxes, endpoint: str, stream: bool) -> None:
    response = await post(world, endpoint, deadline_seconds=1, stream=stream)
    if response.status_code == 200:  # The stream had begun.
        [line] = [line for line in response.text.splitlines() if line.startswith("data: ")]
        error = json.loads(line.removeprefix("data: "))["error"]
    else:
        assert response.status_code == 504
        error = response.json()["error"]
    assert error["code"] == "deadline_exceeded"
    assert "the sandbox has no pod" in error["message"]
    world.assert_clean()


@ENDPOINTS
async def test_an_outage_that_lasts_ends_the_wait(world: World, boxes: Boxes, endpoint: str) -> None:
    waiting = post(world, endpoint)
    await until(lambda: held(world) == 1, "the request to be held")
    set_times(world, outage=0)
    boxes.list(FIRST)  # Whatever changes has them look at the clock again.
    refused = await waiting
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "sandbox_starting")
    assert int(refused.headers["retry-after"]) >= 1


@ENDPOINTS
async def test_nobody_waits_for_a_pod_with_another_volume(
    world: World, boxes: Boxes, endpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere/.s1vl/canary").mkdir(parents=True)
    waiting = post(world, endpoint)
    await until(lambda: held(world) == 1, "the request to be held")
    await boxes.start(FIRST, mount=tmp_path / "elsewhere")
    boxes.list(FIRST)
    for response in (await waiting, await post(world, endpoint)):
        assert (response.status_code, response.json()["error"]["code"]) == (503, "paths_inconsistent")


async def test_a_queue_behind_held_requests_moves_when_they_do(world: World, boxes: Boxes) -> None:
    world.config["tenants"][0]["limits"]["concurrentRequests"] = 1
    world.write_config()
    await until(lambda: world.service.snapshot.config.tenants[0].limits.concurrent_requests == 1)  # type: ignore[union-attr]
    waiting = [post(world, "/process") for _ in range(4)]
    queue = world.service.tenants["chem"].admission
    await until(lambda: (held(world), queue.waiting) == (1, 3), "one to be held and three to be queued")
    await boxes.start(FIRST)
    boxes.list(FIRST)
    assert [(await task).status_code for task in waiting] == [200] * 4


async def test_a_job_waits_when_its_only_pod_is_gone(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    job = await boxes.job(waits("more"), "print(image_path)")
    boxes.go_on()
    await until(lambda: [(at / "more.started").exists() for at in boxes.outputs()] == [True], "the second cell to run")
    await boxes.stop(FIRST)
    boxes.list()
    await until(lambda: held(world) == 1, "the job to wait")
    await boxes.start(SECOND)
    boxes.list(SECOND)
    result = await job
    assert [turn["cell"] and turn["cell"]["status"] for turn in result["turns"]] == ["ok", "lost", "ok", None]
    assert "/mnt/data/images/.s1vl/jobs/" in results(world.engine.requests[-1]["messages"])[2]


async def test_a_job_that_waited_in_vain_is_answered_all_the_same(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    boxes.boxes[FIRST].draining = True
    world.engine.script = [code("print(1)"), final("blind")]
    job = asyncio.create_task(world.answer(text(), image(png())))
    await until(lambda: held(world) == 1, "the job to wait")
    set_times(world, outage=0)
    boxes.list()
    result = await job
    assert (result["stop_reason"], result["answer"]) == ("sandbox_unavailable", "blind")


async def test_a_job_outlives_a_canary_that_fails(world: World, boxes: Boxes, tmp_path: Path) -> None:
    """It has begun already, so that it waits for another canary where new requests are refused."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / ".s1vl/canary").mkdir(parents=True)
    await boxes.start(FIRST)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    job = await boxes.job("print(image_path)")
    box = boxes.boxes[FIRST]
    good, box.mount = box.mount, elsewhere
    world.service.tenants["chem"].recheck()
    await until(lambda: boxes.reason(FIRST) == "CanaryMismatch", "a mismatch")
    box.forget()
    await until(lambda: held(world) == 1, "the job to wait")
    refused = await post(world, "/process")
    assert refused.json()["error"]["code"] == "paths_inconsistent"
    box.mount = good
    assert (await job)["stop_reason"] == "answer"


async def test_nobody_waits_for_a_tenant_that_is_gone(world: World, boxes: Boxes) -> None:
    waiting = post(world, "/process")
    await until(lambda: held(world) == 1, "the request to be held")
    world.config["tenants"].pop(0)
    world.config["anonymousTenant"] = ""
    world.write_config()
    assert (await waiting).json()["error"]["code"] == "sandbox_starting"
    value = world.service.metrics.registry.get_sample_value
    gauges = ("s1vl_paths_consistent", "s1vl_requests_held", "s1vl_sandbox_pods")
    await until(lambda: {value(name, {"tenant": "chem"}) for name in gauges} == {None}, "its series to go")


async def test_where_no_pod_is_listed_the_name_is_asked_while_somebody_waits(world: World, boxes: Boxes) -> None:
    """The operator went away before it listed the pod that it had woken."""
    await boxes.start(FIRST)
    asked = []
    resolve = world.resolve

    async def counting(host: str) -> list[str]:
        asked.append(host)
        return await resolve(host)

    world.service.tenants["chem"].place.sandboxes._resolve = counting
    waiting = post(world, "/process")
    await until(lambda: asked, "the name to be asked for")
    world.hosts[HOST] = [FIRST]
    assert (await waiting).status_code == 200
    assert boxes.all()[FIRST]["listed"]
