"""The watch over engines' progress, over real HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from s1vl_operator.engine_health import EngineHealth, EnginePod, Key

KEY = ("s1", "demo")
TIMEOUT = 0.8
"""Seconds without progress: short, and long beside the time between two readings."""


@dataclass
class Engine:
    """Serves `/metrics`; computes when told to."""

    running: int = 0
    steps: int = 0
    computes: bool = True
    status: int = 200
    url: str = ""
    reads: int = 0
    read: asyncio.Event = field(default_factory=asyncio.Event)

    async def metrics(self, _: web.Request) -> web.Response:
        self.reads += 1
        self.read.set()
        self.steps += bool(self.computes and self.running)
        text = f'vllm:num_requests_running{{engine="0"}} {self.running}\n'
        text += f'vllm:iteration_tokens_total_count{{engine="0"}} {self.steps}\n'
        return web.Response(status=self.status, text=text)

    def pod(self, timeout: float = TIMEOUT, *, suspected: bool = False) -> EnginePod:
        return EnginePod(uid=self.url, url=self.url, timeout=timeout, suspected=suspected)


@dataclass
class Changes:
    """The deployments that were to be looked at, in order."""

    told: asyncio.Queue[Key] = field(default_factory=asyncio.Queue)

    async def next(self) -> Key:
        return await asyncio.wait_for(self.told.get(), 60)


@pytest.fixture
async def engines() -> AsyncIterator[list[Engine]]:
    made, runners = [Engine(), Engine()], []
    for engine in made:
        app = web.Application()
        app.router.add_get("/metrics", engine.metrics)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append(runner)
    yield made
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
async def health(changes: Changes) -> AsyncIterator[EngineHealth]:
    health = EngineHealth(changes.told.put_nowait, time.monotonic)
    health.start()
    yield health
    assert health.alive()
    await health.close()


async def reads(engine: Engine, more: int) -> None:
    """Wait until it was read a few times more."""
    for _ in range(more):
        engine.read.clear()
        await asyncio.wait_for(engine.read.wait(), 60)


async def test_the_one_that_hangs_is_told_from_the_one_that_is_busy(
    engines: list[Engine], health: EngineHealth, changes: Changes
) -> None:
    busy, hung = engines
    busy.running, hung.running, hung.computes = 32, 1, False
    pods = [busy.pod(), hung.pod()]
    assert health.watch(KEY, pods) == frozenset()
    assert await changes.next() == KEY
    assert health.watch(KEY, pods) == {hung.url}
    hung.computes = True
    assert await changes.next() == KEY
    assert health.watch(KEY, pods) == frozenset()


async def test_its_successor_is_not_taken_for_it(engines: list[Engine], health: EngineHealth, changes: Changes) -> None:
    hung, fresh = engines
    hung.running, hung.computes, fresh.running = 1, False, 1
    health.watch(KEY, [hung.pod()])
    await changes.next()
    assert health.watch(KEY, [fresh.pod()]) == frozenset()
    assert health.watch(KEY, [hung.pod()]) == frozenset(), "nothing is kept of a pod that was not watched"


async def test_a_suspect_that_makes_a_step_is_none(
    engines: list[Engine], health: EngineHealth, changes: Changes
) -> None:
    busy = engines[0]
    busy.running = 1
    pod = busy.pod(suspected=True)
    assert health.watch(KEY, [pod]) == frozenset()
    assert health.suspects(KEY) == {busy.url}
    assert await changes.next() == KEY
    assert health.suspects(KEY) == frozenset()
    health.watch(KEY, [pod])
    assert health.suspects(KEY) == frozenset(), "it is known here now"


async def test_a_suspect_that_hangs_is_found_out(engines: list[Engine], health: EngineHealth, changes: Changes) -> None:
    hung = engines[0]
    hung.running, hung.computes = 1, False
    pod = hung.pod(suspected=True)
    health.watch(KEY, [pod])
    assert health.suspects(KEY) == {hung.url}
    # It is told of once: it is not trusted in between.
    assert await changes.next() == KEY
    assert health.watch(KEY, [pod]) == {hung.url}
    assert health.suspects(KEY) == frozenset()


@pytest.mark.parametrize("status", [200, 503])
async def test_a_suspect_that_has_nothing_to_do_is_trusted_in_the_end(
    status: int, engines: list[Engine], health: EngineHealth, changes: Changes
) -> None:
    idle = engines[0]
    idle.status = status
    health.watch(KEY, [idle.pod(suspected=True)])
    assert await changes.next() == KEY
    assert health.suspects(KEY) == health.watch(KEY, [idle.pod(suspected=True)]) == frozenset()


@pytest.mark.parametrize("trouble", ["idle", "silent"])
async def test_nothing_is_said_of_one_that_is(
    trouble: str, engines: list[Engine], health: EngineHealth, changes: Changes
) -> None:
    engine, other = engines
    engine.computes = False
    if trouble == "silent":
        engine.running, engine.status = 1, 503
    health.watch(KEY, [engine.pod()])
    other.running, other.computes = 1, False
    health.watch(("s1", "other"), [other.pod()])
    # That one is noticed, with the same patience.
    assert await changes.next() == ("s1", "other")
    await reads(engine, 2)
    assert health.watch(KEY, [engine.pod()]) == frozenset()
    assert changes.told.empty()


async def test_a_deployment_that_is_gone_is_read_no_more(
    engines: list[Engine], health: EngineHealth, changes: Changes
) -> None:
    gone, stays = engines
    health.watch(KEY, [gone.pod()])
    health.watch(("s1", "other"), [stays.pod()])
    await reads(gone, 1)
    health.watch(KEY, [])
    await reads(stays, 2)
    before = gone.reads
    await reads(stays, 5)
    assert gone.reads == before
