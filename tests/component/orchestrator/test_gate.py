"""The path canary opens and closes the gate, and the operator is told the truth."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from s1vl_orchestrator.errors import ErrorCode
from s1vl_orchestrator.sandbox_pod import WatchTimes
from tests.component.orchestrator.conftest import TIMES, World, final, image, png, text, until


@pytest.fixture
def times() -> WatchTimes:
    return replace(TIMES, canary=0.5)


def canaries(world: World) -> list[Path]:
    return list((world.folder() / ".s1vl/canary").iterdir())


async def test_what_the_operator_sees(world: World) -> None:
    await until(lambda: not world.service.engine_problem, "the engine to be seen")
    body = await world.tenants()
    assert re.fullmatch(r"[0-9a-f]{64}", body["configVersion"])
    address = world.config["engine"]["url"].removeprefix("http://")
    pod = {"address": address, "version": "", "requests": 0, "seats": 0}
    pod |= {"listed": True, "avoided": False, "reason": ""}
    assert body["engine"] == {"ready": True, "message": "", "pods": [pod]}
    chem = body["tenants"][0]
    assert (chem["name"], chem["ready"], chem["reason"], chem["jobsRunning"]) == ("chem", True, "Ready", 0)
    assert (chem["paths"]["consistent"], chem["paths"]["reason"]) == (True, "PathsConsistent")
    assert chem["paths"]["checkedAt"].endswith("Z")
    async with httpx.AsyncClient(base_url=world.management) as http:
        assert (await http.post("/internal/tenants/recheck")).status_code == 202
        assert (await http.get("/metrics")).status_code == 200
    # The clients' port has none of it.
    assert (await world.http.get("/internal/tenants")).status_code == 404


async def test_a_wrong_mount_closes_the_gate_and_heals(world: World, tmp_path: Path) -> None:
    box = world.sandboxes["chem"]
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / ".s1vl/canary").mkdir(parents=True)
    good, box.mount = box.mount, elsewhere
    status = await until(lambda: (s := world.service.tenants["chem"].status).consistent is False and s, "a mismatch")
    assert status.reason == "CanaryMismatch"
    for view in ("chem", "/data/images", "/mnt/data/images", "FileNotFoundError"):
        assert view in status.message
    refused = await world.ask(text(), image(png()))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "paths_inconsistent")
    assert int(refused.headers["retry-after"]) >= 1
    assert (await world.tenants())["tenants"][0]["reason"] == "PathsInconsistent"
    # The other tenant is served all the while.
    world.engine.script = [final("fine")]
    assert (await world.answer(text(), image(png()), key="key-bio"))["answer"] == "fine"
    world.assert_clean()

    box.mount = good
    await until(lambda: world.service.tenants["chem"].status.consistent, "the gate to open")
    assert (await world.ask(text(), image(png()))).status_code == 200
    # What our runtime made there is empty, and goes with the canaries of the tenant whose folder it is.
    assert not [file for file in elsewhere.rglob("*") if file.is_file()]


async def test_a_volume_without_the_canarys_folder_is_another_one(world: World, tmp_path: Path) -> None:
    box = world.sandboxes["chem"]
    box.mount = tmp_path / "elsewhere"
    box.mount.mkdir()
    status = await until(lambda: (s := world.service.tenants["chem"].status).consistent is False and s, "a mismatch")
    assert status.reason == "CanaryMismatch"
    assert "is not an absolute path of a directory" in status.message
    assert not list(box.mount.iterdir())


async def test_a_canarys_session_reaches_nothing_else(world: World) -> None:
    box = world.sandboxes["chem"]
    box.grants.clear()
    await until(lambda: box.grants, "another canary")
    for grants in box.grants.values():
        assert re.fullmatch(r"/mnt/data/images/\.s1vl/canary/[0-9a-f]{16}", grants["cwd"])
        assert grants["readable"] == [grants["cwd"]]


async def test_what_killed_instances_left_is_removed(world: World) -> None:
    left = world.folder() / ".s1vl/canary/left"
    left.mkdir()
    (left / "nonce").write_text("x")
    os.utime(left, (1, 1))
    await until(lambda: not left.exists(), "the old canary to go")


async def test_a_copy_of_the_folder_is_not_the_folder(world: World, tmp_path: Path) -> None:
    """The kernel can read and write, and even finds a file of that name: but what it writes does not arrive."""
    from s1vl_orchestrator import canary

    box = world.sandboxes["chem"]
    copy = tmp_path / "copy"
    (copy / ".s1vl/canary").mkdir(parents=True)
    original = canary._write

    def write_both(paths, folder, nonce):  # type: ignore[no-untyped-def]
        original(paths, folder, nonce)
        (copy / folder).mkdir()
        (copy / folder / canary.NONCE).write_bytes(nonce)

    canary._write = write_both
    canary.VISIBLE_SECONDS, visible = 0.1, canary.VISIBLE_SECONDS
    try:
        box.mount = copy
        status = await until(lambda: (s := world.service.tenants["chem"].status).consistent is False and s)
        assert "does not arrive" in status.message
    finally:
        canary._write = original
        canary.VISIBLE_SECONDS = visible


async def test_a_sandbox_that_is_gone_is_starting(world: World) -> None:
    world.config["tenants"][0]["sandbox"]["url"] = "http://127.0.0.1:1"
    world.write_config()
    await until(lambda: world.service.tenants["chem"].status.reason == "SandboxUnreachable")
    refused = await world.ask(text(), image(png()))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, ErrorCode.SANDBOX_STARTING)
    chem = (await world.tenants())["tenants"][0]
    assert (chem["reason"], chem["paths"]["consistent"]) == ("SandboxStarting", None)


async def test_a_wrong_sandbox_key_is_not_consistent(world: World) -> None:
    world.sandboxes["chem"].key = "another"
    world.service.tenants["chem"].recheck()
    await until(lambda: world.service.tenants["chem"].status.reason == "SandboxUnreachable")


async def test_a_folder_that_cannot_be_written(world: World) -> None:
    world.folder().rename(world.root / "moved")
    await until(lambda: world.service.tenants["chem"].status.reason == "CanaryWriteFailed")
    refused = await world.ask(text(), image(png()))
    assert refused.json()["error"]["code"] == "paths_inconsistent"
    (world.root / "moved").rename(world.folder())
    await until(lambda: world.service.tenants["chem"].status.consistent)


async def test_another_sandbox_process_is_checked_at_once(world: World) -> None:
    box = world.sandboxes["chem"]
    before = world.service.tenants["chem"].status.checked_at
    box.boot_id = "another"
    await until(lambda: world.service.tenants["chem"].status.checked_at != before)


async def test_canaries_leave_no_session_and_no_file(world: World) -> None:
    opened = world.sandboxes["chem"].opened
    await until(lambda: world.sandboxes["chem"].opened >= opened + 3, "three more canaries")
    await until(lambda: not canaries(world) and not world.sandboxes["chem"].sessions, "nothing left")


async def test_a_full_sandbox_keeps_what_is_known(world: World) -> None:
    world.sandboxes["chem"].max_sessions = 0
    checked = world.service.metrics.registry.get_sample_value
    before = checked("s1vl_path_canaries_total", {"tenant": "chem", "reason": "PathsConsistent"})
    world.service.tenants["chem"].recheck()
    await until(lambda: "sessions/create", "never")
    assert world.service.tenants["chem"].status.consistent
    assert before
