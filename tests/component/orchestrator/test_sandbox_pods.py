"""Several pods of a tenant's sandbox: each proves its paths, and a job's session stays where it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.component.orchestrator.boxes import FIRST, HOST, SECOND, THIRD, Boxes, sandbox_of_chem, waits
from tests.component.orchestrator.conftest import World, code, final, image, png, results, text, until


@pytest.fixture
async def boxes(world: World) -> AsyncIterator[Boxes]:
    async with sandbox_of_chem(world) as boxes:
        yield boxes


async def test_what_the_operator_sees(world: World, boxes: Boxes) -> None:
    chem = (await world.tenants())["tenants"][0]
    assert (chem["reason"], chem["sandboxes"], chem["paths"]["consistent"]) == ("SandboxStarting", [], None)
    await boxes.start(FIRST, SECOND)
    boxes.list(FIRST, SECOND)
    await boxes.ready(FIRST, SECOND)
    job = await boxes.job()
    chem = (await world.tenants())["tenants"][0]
    assert (chem["reason"], chem["paths"]["consistent"]) == ("Ready", True)
    pod = {"listed": True, "consistent": True, "reason": "PathsConsistent", "message": ""}
    by_load = sorted(chem["sandboxes"], key=lambda pod: pod["sessions"])
    assert {pod["address"] for pod in by_load} == {f"{FIRST}:{boxes.port}", f"{SECOND}:{boxes.port}"}
    assert [{**shown, "address": ""} for shown in by_load] == [
        {"address": "", "sessions": 0, **pod},
        {"address": "", "sessions": 1, **pod},
    ]
    metrics = (await world.http.get("/metrics")).text
    assert 's1vl_sandbox_pods{tenant="chem"} 2.0' in metrics
    boxes.go_on()
    await job


async def test_jobs_are_spread_and_leave_nothing(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST, SECOND, THIRD)
    boxes.list(FIRST, SECOND, THIRD)
    await boxes.ready(FIRST, SECOND, THIRD)
    jobs = [await boxes.job() for _ in range(6)]
    assert boxes.sessions() == {FIRST: 2, SECOND: 2, THIRD: 2}
    boxes.go_on()
    assert {(await job)["answer"] for job in jobs} == {"red"}
    assert not boxes.sessions()
    await until(lambda: not any(box.sessions for box in boxes.boxes.values()), "the sessions to go")


async def test_a_session_stays_at_a_pod_that_is_no_longer_listed(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST, SECOND)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    job = await boxes.job("print(x)")
    boxes.boxes[FIRST].draining = True
    boxes.list(SECOND)
    await boxes.ready(SECOND)
    assert boxes.sessions() == {FIRST: 1}
    boxes.go_on()
    assert [turn["cell"] and turn["cell"]["status"] for turn in (await job)["turns"]] == ["ok", "ok", None]
    await until(lambda: set(boxes.all()) == {SECOND}, "the pod to be forgotten")
    assert not boxes.boxes[FIRST].sessions


async def test_a_deletion_that_fails_at_a_pod_that_leaves_is_swept(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    job = await boxes.job()
    boxes.boxes[FIRST].fail_deletes = 3
    boxes.list()
    await until(lambda: not boxes.all()[FIRST]["listed"])
    boxes.go_on()
    await job
    await until(lambda: not boxes.all(), "the pod to be forgotten")
    assert not boxes.boxes[FIRST].sessions


async def test_a_job_goes_on_elsewhere_when_its_pod_is_gone(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    job = await boxes.job(waits("more"), "print(x)", "print(image_path)")
    boxes.go_on()
    await until(lambda: [(at / "more.started").exists() for at in boxes.outputs()] == [True], "the second cell to run")
    await boxes.start(SECOND)
    await boxes.stop(FIRST)
    boxes.list(SECOND)
    result = await job
    assert [turn["cell"] and turn["cell"]["status"] for turn in result["turns"]] == ["ok", "lost", "error", "ok", None]
    told = results(world.engine.requests[-1]["messages"])
    assert "variables of earlier code are lost" in told[1]
    assert "NameError" in told[2]
    assert set(boxes.all()) == {SECOND}


async def test_a_pod_that_drains_gets_no_new_session(world: World, boxes: Boxes) -> None:
    """Nobody is told: the pod still looks well, and says so only to who asks for a session."""
    await boxes.start(FIRST, SECOND)
    boxes.list(FIRST, SECOND)
    await boxes.ready(FIRST, SECOND)
    boxes.boxes[FIRST].draining = True
    world.engine.script = [code("print(1)"), final("red")]
    for _ in range(4):
        world.engine.script = [code("print(1)"), final("red")]
        assert (await world.answer(text(), image(png())))["stop_reason"] == "answer"
    await boxes.ready(SECOND)
    assert "draining" in boxes.all()[FIRST]["message"]
    # Another process at the same address may be used again.
    boxes.boxes[FIRST].draining = False
    boxes.boxes[FIRST].boot_id = "another"
    await boxes.ready(FIRST, SECOND)


async def test_a_job_waits_for_the_pod_that_comes_after_one_that_drains(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    boxes.boxes[FIRST].draining = True
    world.engine.script = [code("print(1)"), final("red")]
    job = asyncio.create_task(world.answer(text(), image(png())))
    await until(lambda: world.service.tenants["chem"].place.sandboxes.waiting, "the job to wait")
    await boxes.start(SECOND)
    boxes.list(SECOND)
    assert (await job)["turns"][0]["cell"]["status"] == "ok"


async def test_a_pod_with_another_volume_gets_nothing(world: World, boxes: Boxes, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / ".s1vl/canary").mkdir(parents=True)
    await boxes.start(FIRST)
    await boxes.start(SECOND, mount=elsewhere)
    boxes.list(FIRST, SECOND)
    await until(lambda: boxes.reason(SECOND) == "CanaryMismatch", "a mismatch")
    await boxes.ready(FIRST)
    chem = (await world.tenants())["tenants"][0]
    assert (chem["reason"], chem["paths"]["consistent"]) == ("PathsInconsistent", False)
    boxes.boxes[SECOND].codes.clear()
    for _ in range(3):
        world.engine.script = [code("print('mine')"), final("red")]
        assert (await world.answer(text(), image(png())))["stop_reason"] == "answer"
    assert not any("mine" in source for source in boxes.boxes[SECOND].codes)


async def test_an_address_that_another_pod_has_is_proven_anew(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    boxes.boxes[FIRST].mount = world.folder("bio")
    boxes.list(FIRST, prefix="another")
    await until(lambda: boxes.reason(FIRST) == "CanaryMismatch", "the canary")


async def test_pods_that_nobody_lists_are_found_by_name(world: World, boxes: Boxes) -> None:
    """The operator is away: what it listed last is gone, and what there is it has never seen."""
    await boxes.start(FIRST)
    boxes.list(SECOND)
    await until(lambda: SECOND in boxes.all())
    world.hosts[HOST] = [FIRST]
    await boxes.ready(FIRST)
    world.engine.script = [code("print(1)"), final("red")]
    assert (await world.answer(text(), image(png())))["stop_reason"] == "answer"
    # It is back. What it lists is proven already.
    [found] = [pod for pod in world.service.tenants["chem"].place.sandboxes._pods.values() if pod.open]
    boxes.list(FIRST)
    await until(lambda: found.name, "the pod to have a name")
    assert found.open
    await boxes.start(THIRD)
    boxes.list(THIRD)
    await until(lambda: set(boxes.all()) == {THIRD}, "what is listed to count alone")
    await boxes.ready(THIRD)


async def test_without_a_list_the_url_is_used(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST)
    world.config["tenants"][0]["sandbox"]["url"] = f"http://{FIRST}:{boxes.port}"
    world.write_pods(sandboxes={})
    world.write_config()
    await boxes.ready(FIRST)


async def test_a_list_that_is_not_valid_is_refused_and_said(world: World, boxes: Boxes) -> None:
    await boxes.start(FIRST)
    boxes.list(FIRST)
    await boxes.ready(FIRST)
    world.write_pods(sandboxes={"chem": [{"name": "x", "address": "nowhere"}]})
    await until(lambda: world.service.config_problem, "the refusal")
    body = await world.tenants()
    assert (body["refused"], "pods.yaml: sandboxes.chem.0.address" in body["message"]) == (True, True)
    await boxes.ready(FIRST)
