"""The orchestrator: what it adds to a turn, how it fares beside the obvious server, what it sends, what it holds.

A real ``s1vl-orchestrator --config FILE`` on one CPU; on another one the client and the stand-ins for engine and
sandbox, which answer at once (`bench/peers.py`). All answers are checked.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench import programs
from bench.figures import Figure, percentiles
from bench.jobs import Client, jobs_per_second, until
from bench.peers import EnginePeer, SandboxPeer, Span, served
from bench.programs import Program, Volume, other_cpus, temporary_folder
from bench.scripted import photo, request_body, scan
from bench.stock_sandbox import stock_sandbox
from hack.kube import wait_for
from hack.sandbox_program import SandboxProgram

MIB = 1024 * 1024
TURNS = 4
MEGAPIXEL = (1024, 1024)
FOUR_K = (3840, 2160)
WARM_UP = 10
MEASURED_JOBS = 200
ROUNDS = 5
AT_ONCE = 8
CROWD = 200
HANG_UPS = 20


@dataclass(frozen=True)
class Place:
    """Stand-ins that answer, and a volume."""

    folder: Path
    volume: Volume
    engine: EnginePeer
    sandbox: SandboxPeer
    engine_url: str
    sandbox_url: str

    def orchestrator(self, **options: Any) -> AbstractAsyncContextManager[Program]:
        """The orchestrator between them; `options` as in `bench.programs.orchestrator`."""
        peers = {"engine": self.engine_url, "sandbox": self.sandbox_url}
        return programs.orchestrator(self.folder, self.volume, **{**peers, **options})

    def naive(self, **options: Any) -> AbstractAsyncContextManager[Program]:
        """The naive server between them."""
        peers = {"engine": self.engine_url, "sandbox": self.sandbox_url}
        return programs.naive(self.folder, self.volume, **{**peers, **options})


@contextlib.asynccontextmanager
async def place(*, on_disk: bool = True) -> AsyncIterator[Place]:
    """Stand-ins and a volume, both gone afterwards.

    Without `on_disk` the volume is in memory: what a disk or a network takes for a file is not the orchestrator's time.
    """
    os.sched_setaffinity(0, other_cpus())
    engine, sandbox = EnginePeer(), SandboxPeer()
    with temporary_folder(on_disk=on_disk) as folder:
        volume = Volume(folder / "volume")
        volume.folder.mkdir(parents=True)
        async with served(engine.app()) as engine_url, served(sandbox.app()) as sandbox_url:
            yield Place(folder, volume, engine, sandbox, engine_url, sandbox_url)


def measure() -> Iterator[Figure]:
    """All figures of this part."""
    for part in (_overhead, _with_kernel, _versus_naive, _versus_naive_with_kernels, _bytes, _memory, _disconnect):
        yield from asyncio.run(part())


def turn_overheads(began: float, ended: float, spans: Sequence[Span]) -> list[float]:
    """For each turn of one job the time that neither the engine nor the sandbox had.

    A turn lasts until the engine has the request for the next one, the last one until the client has the answer; the
    first one begins when the client sends its request.

    Raises:
        ValueError: If there is no turn.
    """
    turns = [span.began for span in spans if span.party == "engine"]
    if not turns:
        raise ValueError("no request came to the engine")
    bounds = [began, *turns[1:], ended]
    return [
        until - since - sum(span.ended - span.began for span in spans if since <= span.began < until)
        for since, until in pairwise(bounds)
    ]


async def _overhead() -> list[Figure]:
    plain, first = await _turns(crops=False)
    with_crops, _ = await _turns(crops=True)
    return [
        *percentiles("orchestrator.turn_overhead", plain, 4, 20),
        *percentiles("orchestrator.first_turn_overhead", first),
        *percentiles("orchestrator.turn_overhead_with_crops", with_crops),
    ]


async def _with_kernel() -> list[Figure]:
    turns, _ = await _turns(crops=True, kernels=True)
    return percentiles("orchestrator.turn_with_kernel", turns)


async def _turns(*, crops: bool, kernels: bool = False) -> tuple[list[float], list[float]]:
    """The overheads of all turns, and of the first ones among them; a real sandbox's time is in them."""
    picture = photo(*MEGAPIXEL)
    encoded = base64.b64encode(picture)
    turns: list[float] = []
    first: list[float] = []
    async with place(on_disk=False) as here:
        path = here.volume.put("picture.jpg", picture)
        async with contextlib.AsyncExitStack() as stack:
            sandbox = await stack.enter_async_context(_real_sandbox(here)) if kernels else here.sandbox_url
            program = await stack.enter_async_context(here.orchestrator(sandbox=sandbox))
            client = await stack.enter_async_context(Client(program.url))
            for job in range(WARM_UP + MEASURED_JOBS):
                here.engine.spans.clear()
                here.sandbox.spans.clear()
                body = request_body(job, TURNS, encoded, path, crops=crops)
                got = await client.right(body, job, len(picture), TURNS if crops else 1)
                if job >= WARM_UP:
                    spans = sorted([*here.engine.spans, *here.sandbox.spans], key=lambda span: span.began)
                    measured = turn_overheads(got.began, got.ended, spans)
                    turns += measured
                    first.append(measured[0])
    return turns, first


@contextlib.asynccontextmanager
async def _real_sandbox(here: Place) -> AsyncIterator[str]:
    state = here.folder / "s"
    state.mkdir()
    program = SandboxProgram(state, workspace=here.volume.folder, max_sessions=AT_ONCE + 4, warm_kernels=4)
    try:
        await asyncio.to_thread(wait_for, "the sandbox", program.ready, every=0.05)
        yield program.url
    finally:
        await asyncio.to_thread(program.end)


async def _versus_naive() -> list[Figure]:
    async with (
        place(on_disk=False) as here,
        here.orchestrator() as ours,
        here.naive() as theirs,
        Client(ours.url) as our_client,
        Client(theirs.url) as their_client,
        here.naive(keep_client=True) as keeping,
        Client(keeping.url) as keeping_client,
    ):
        megapixel = await _alternate(here, our_client, their_client, photo(*MEGAPIXEL), (160, 32))
        four_k = await _alternate(here, our_client, their_client, photo(*FOUR_K), (48, 8))
        kept = await _alternate(here, our_client, keeping_client, photo(*MEGAPIXEL), (160, 96))
    return [
        Figure("orchestrator.vs_naive", megapixel.ratio, goal=5, better="higher"),
        Figure("orchestrator.jobs_per_second", megapixel.ours),
        Figure("naive.jobs_per_second", megapixel.theirs),
        # At 1 it would be the stand-ins and the client that are measured.
        Figure("orchestrator.peers_cpu_share", megapixel.peers_share),
        Figure("orchestrator.vs_naive_kept_client", kept.ratio),
        Figure("orchestrator.vs_naive_4k", four_k.ratio),
        Figure("orchestrator.jobs_per_second_4k", four_k.ours),
        Figure("naive.jobs_per_second_4k", four_k.theirs),
    ]


@dataclass(frozen=True)
class _Speeds:
    """Medians over the rounds: jobs/s, the ratio of both, and the CPU time of client and stand-ins per second."""

    ours: float
    theirs: float
    ratio: float
    peers_share: float


async def _alternate(
    here: Place, our_client: Client, their_client: Client, picture: bytes, counts: tuple[int, int]
) -> _Speeds:
    path = here.volume.put("picture.jpg", picture)
    encoded = base64.b64encode(picture)
    ours = partial(request_body, turns=TURNS, encoded=encoded, path=path)
    theirs = partial(request_body, turns=TURNS, encoded=encoded, path=f"{here.volume.folder}/picture.jpg")
    speeds: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS + 1):
        busy, began = time.process_time(), time.perf_counter()
        our_speed = await jobs_per_second(our_client, counts[0], AT_ONCE, ours, size=len(picture), pictures=TURNS)
        share = (time.process_time() - busy) / (time.perf_counter() - began)
        their_speed = await jobs_per_second(their_client, counts[1], AT_ONCE, theirs, size=len(picture), pictures=TURNS)
        speeds.append((our_speed, their_speed, share))
    measured = speeds[1:]  # The first round warms both up.
    return _Speeds(
        ours=statistics.median(our for our, _, _ in measured),
        theirs=statistics.median(their for _, their, _ in measured),
        ratio=statistics.median(our / their for our, their, _ in measured),
        peers_share=statistics.median(share for _, _, share in measured),
    )


async def _versus_naive_with_kernels() -> list[Figure]:
    """With real kernels: the orchestrator with s1vl's sandbox, the naive server with it and with a stock one."""
    picture = photo(*MEGAPIXEL)
    encoded = base64.b64encode(picture)
    async with place(on_disk=False) as here, _real_sandbox(here) as sandbox_url, stock_sandbox() as stock_url:
        path = here.volume.put("picture.jpg", picture)
        on_host = f"{here.volume.folder}/picture.jpg"
        servers = {
            "ours": here.orchestrator(sandbox=sandbox_url),
            "naive": here.naive(sandbox=sandbox_url),
            "naive_stock": here.naive(sandbox=stock_url),
        }
        speeds: dict[str, float] = {}
        for name, server in servers.items():
            async with server as program, Client(program.url) as client:
                where = path if name == "ours" else on_host
                body = partial(request_body, turns=TURNS, encoded=encoded, path=where)
                count = 8 if name == "naive_stock" else 24
                speeds[name] = statistics.median(
                    [await jobs_per_second(client, count, 4, body, size=len(picture), pictures=TURNS) for _ in range(3)]
                )
    return [
        Figure("orchestrator.jobs_per_second_with_kernels", speeds["ours"]),
        Figure("orchestrator.vs_naive_same_sandbox", speeds["ours"] / speeds["naive"]),
        Figure("orchestrator.vs_naive_stock_kernels", speeds["ours"] / speeds["naive_stock"]),
    ]


async def _bytes() -> list[Figure]:
    picture = photo(*FOUR_K)
    encoded = base64.b64encode(picture)
    turns = 8
    async with place() as here:
        path = here.volume.put("picture.jpg", picture)
        servers = {
            "ours": here.orchestrator(),
            "without_files": here.orchestrator(media=False),
            "naive": here.naive(),
        }
        sent: dict[str, int] = {}
        for name, server in servers.items():
            where = f"{here.volume.folder}/picture.jpg" if name == "naive" else path
            async with server as program, Client(program.url) as client:
                before = here.engine.bytes_in
                await client.right(request_body(1, turns, encoded, where), 1, len(picture), turns)
                sent[name] = here.engine.bytes_in - before
    return [
        Figure("orchestrator.bytes_to_engine", sent["ours"] / sent["naive"], goal=1 / 50),
        Figure("orchestrator.bytes_to_engine_without_files", sent["without_files"] / sent["naive"]),
        Figure("naive.mib_to_engine", sent["naive"] / MIB, "MiB"),
    ]


async def _memory() -> list[Figure]:
    encoded = base64.b64encode(scan(*FOUR_K, 8 * MIB))
    async with (
        place() as here,
        here.orchestrator(concurrent=CROWD, deadline_seconds=900) as program,
        Client(program.url) as client,
    ):
        idle = program.rss_mib
        here.engine.hold_turn = 1
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for job in range(CROWD):
                group.create_task(client.right(request_body(job, TURNS, encoded), job, 8 * MIB, TURNS))
            await until(lambda: here.engine.open == CROWD)
            all_there = time.perf_counter() - began
            here.engine.gate.set()
        return [
            Figure("orchestrator.memory", program.peak_rss_mib, "MiB", 400),
            Figure("orchestrator.memory_idle", idle, "MiB"),
            Figure("orchestrator.memory_all_there", all_there, "s"),
        ]


async def _disconnect() -> list[Figure]:
    encoded = base64.b64encode(photo(*MEGAPIXEL))
    seconds = []
    async with place() as here, here.orchestrator() as program, Client(program.url) as client:
        engine, sandbox = here.engine, here.sandbox
        engine.hold_turn = 2
        for job in range(1, HANG_UPS + 1):
            sent = asyncio.create_task(client.send(request_body(job, TURNS, encoded)))
            await until(lambda job=job: engine.open and engine.requests == 2 * job)  # type: ignore[misc]
            aborted, deleted = len(engine.aborted), len(sandbox.deleted)
            began = time.perf_counter()
            sent.cancel()
            await asyncio.wait([sent])
            await until(lambda: len(engine.aborted) > aborted and len(sandbox.deleted) > deleted)  # noqa: B023
            seconds.append(max(engine.aborted[-1], sandbox.deleted[-1]) - began)
    return [Figure("orchestrator.disconnect", max(seconds), "s", 1)]
