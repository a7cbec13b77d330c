"""Engine simulators as processes of their own, killed and drained while jobs run."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hack.ports import free_port
from s1vl_orchestrator import engine_pods
from tests.component.orchestrator.conftest import World, code, final, image, png, text, until
from tests.component.orchestrator.test_stream import all_events

VLLM = Path(__file__).resolve().parents[3] / "hack/engine_sim/bin/vllm"
ADDRESSES = ("127.0.0.2", "127.0.0.3")
CROP = code("image_1.resize((40, 40)).save(output_dir + '/a.png')")


class Simulators:
    """By address, all at one port."""

    def __init__(self, world: World) -> None:
        self.port = free_port()
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self._root = world.root

    async def start(self, address: str) -> None:
        self.processes[address] = await asyncio.create_subprocess_exec(
            sys.executable, VLLM, "serve", "ScienceOne-AI/S1-VL-32B", "--port", str(self.port), "--host", address,
            "--max-model-len", "32768", "--limit-mm-per-prompt", '{"image":15,"video":0}', "--shutdown-timeout", "30",
            "--reasoning-parser", "deepseek_r1", "--allowed-local-media-path", str(self._root),
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

    async def end(self, address: str, how: signal.Signals) -> None:
        self.processes[address].send_signal(how)
        if how is signal.SIGKILL:
            await self.processes.pop(address).wait()

    async def faults(self, address: str, **faults: Any) -> None:
        async with httpx.AsyncClient() as client:
            answer = await client.put(f"http://{address}:{self.port}/sim/faults", json=faults)
        assert answer.status_code == 200

    async def kinds(self, address: str) -> list[tuple[list[str], int]]:
        """For each request how its pictures came, and its answer's status."""
        async with httpx.AsyncClient() as client:
            seen = (await client.get(f"http://{address}:{self.port}/sim/requests")).json()
        return [([picture["kind"] for picture in request["images"]], request["status"]) for request in seen]


def working(world: World) -> str:
    """The address of the pod that has the one request that runs."""
    found = [pod["address"] for pod in world.service.describe()["engine"]["pods"] if pod["requests"]]
    return found[0].split(":")[0] if found else ""


@pytest.fixture
async def simulators(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulators]:
    monkeypatch.setattr(engine_pods, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(engine_pods, "WATCH_LEAST_SECONDS", 0.05)
    simulators = Simulators(world)
    world.addresses = list(ADDRESSES)
    world.config["engine"] |= {"url": f"http://127.0.0.9:{simulators.port}", "podsHost": "engine-pods.test"}
    world.write_config()
    try:
        for address in ADDRESSES:
            await simulators.start(address)
        await until(lambda: _versions(world) == ["0.32.0"] * 2, "both simulators to be seen", 60)
        yield simulators
    finally:
        for process in simulators.processes.values():
            with contextlib.suppress(ProcessLookupError):  # One that drained is gone.
                process.kill()
            await process.wait()


def _versions(world: World) -> list[str]:
    return [pod["version"] for pod in world.service.describe()["engine"]["pods"]]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_pod_that_is_killed_in_the_middle_of_a_turn(world: World, simulators: Simulators, stream: bool) -> None:
    for address in ADDRESSES:
        await simulators.faults(address, token_delay_ms=20, next_texts=[CROP, "I look once more. " * 500])
    asking = (
        asyncio.create_task(all_events(world, text(), image(png()), stream=True))
        if stream
        else asyncio.create_task(world.answer(text(), image(png())))
    )
    first = await until(lambda: working(world), "the first turn")
    [other] = {*ADDRESSES} - {first}
    await until(lambda: list(world.folder().glob(".s1vl/jobs/*/output/a.png")), "the first cell")
    await simulators.faults(other, next_texts=[final("red")])
    await until(lambda: working(world) == first, "the second turn")
    await simulators.end(first, signal.SIGKILL)
    told = await asking
    result = told[-1][1] if isinstance(told, list) else told
    assert result["answer"] == "red"
    assert result["turns"][1]["engine"]["attempts"] >= 2
    assert await simulators.kinds(other) == [(["file", "file"], 200)]
    # Another process at the same address, and the next jobs may go there again.
    await simulators.start(first)
    await until(lambda: _versions(world) == ["0.32.0"] * 2, "the new one to be seen", 60)
    for address in ADDRESSES:
        await simulators.faults(address, next_texts=[final("blue")])
    assert (await world.answer(text(), image(png())))["answer"] == "blue"


async def test_a_pod_that_drains_loses_no_turn(world: World, simulators: Simulators) -> None:
    for address in ADDRESSES:
        await simulators.faults(address, token_delay_ms=30, next_texts=[CROP])
    asking = asyncio.create_task(world.answer(text(), image(png())))
    first = await until(lambda: working(world), "the first turn")
    [other] = {*ADDRESSES} - {first}
    await simulators.faults(other, next_texts=[final("red")])
    await simulators.end(first, signal.SIGTERM)
    result = await asking
    assert (result["answer"], result["turns"][0]["engine"]["attempts"]) == ("red", 1)
    assert await simulators.kinds(other) == [(["file", "file"], 200)]
