"""Many jobs through an orchestrator whose engine and sandbox fail now and then: all are answered, nothing is left.

Beside the faults some clients hang up in the middle. What is left is counted when everything is over: sessions in the
sandbox, folders on the volume, tasks of the event loop, file descriptors.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.figures import Figure
from bench.jobs import Answered, Client
from bench.orchestrator import place
from bench.peers import Faults
from bench.programs import Program
from bench.scripted import answer, photo, request_body, told
from s1vl_orchestrator.errors import ErrorCode
from s1vl_orchestrator.loop import StopReason

JOBS = 20_000
FAULT_RATE = 0.01
HANG_UP_RATE = 0.01
AT_ONCE = 32
WARM_UP = 500
DEADLINE_SECONDS = 20
"""Of each job, so that an engine that hangs does not hold the soak up."""
SETTLE_SECONDS = 90
"""Kept connections are closed after 4 s, and sessions that could not be deleted are tried again every 5 s."""


@dataclass
class Outcome:
    """What came of a soak.

    Attributes:
        ends: Jobs by how they ended: a stop reason, an error's code, or "hung_up".
        problems: Answers that are wrong or undocumented, each with the job.
        faults: How many were injected, by party.
        seconds: How long the jobs took, after the warm-up.
        jobs: How many there were in that time.
        rss: MiB after the warm-up and at the end.
        left: What is still there that was not there before, by kind.
    """

    ends: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    jobs: int = 0
    rss: tuple[float, float] = (0.0, 0.0)
    left: dict[str, int] = field(default_factory=dict)


def judge(got: Answered, job: int, size: int, turns: int) -> tuple[str, str]:
    """How a job ended, and what is wrong with its answer, "" for nothing."""
    try:
        result = got.result
        if got.status != 200:
            code = ErrorCode(result["error"]["code"])
            return code.value, "" if code.status == got.status else f"{code.value} came with HTTP {got.status}"
        end = StopReason(result["stop_reason"])
        if end is not StopReason.ANSWER:
            return end.value, ""
        said = told(result)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return "unreadable", f"HTTP {got.status} {got.body[:300]!r} ({type(error).__name__} {error})"
    # With a kernel that was lost there are fewer pictures, and perhaps no size; never another job's.
    right = {answer(job, known, pictures) for known in (size, None) for pictures in range(1, turns + 1)}
    return end.value, "" if said in right else f"answered {said!r}"


async def soak(jobs: int, *, warm_up: int, rate: float = FAULT_RATE, at_once: int = AT_ONCE) -> Outcome:
    """Send `jobs` jobs after `warm_up` others, `at_once` at a time, then wait for what is left to go away."""
    outcome = Outcome()
    picture = photo(256, 192)
    kept = 0
    draw = random.Random(7)  # noqa: S311 - nothing secret

    async with place() as here, here.orchestrator(concurrent=at_once, deadline_seconds=DEADLINE_SECONDS) as program:
        here.engine.faults, here.sandbox.faults = Faults(), Faults()

        async def one(client: Client, job: int) -> None:
            nonlocal kept
            # Another size for every job: a picture that went to the wrong one shows.
            content = picture + bytes(job % 997)
            turns = 1 + job % 4
            sent = asyncio.create_task(client.send(request_body(job, turns, base64.b64encode(content))))
            if draw.random() < HANG_UP_RATE:
                await asyncio.wait({sent}, timeout=draw.uniform(0, 0.3))
                if sent.cancel():
                    await asyncio.wait({sent})
                    outcome.ends["hung_up"] += 1
                    return
            end, problem = judge(got := await sent, job, len(content), turns)
            outcome.ends[end] += 1
            if problem:
                outcome.problems.append(f"job {job}: {problem}")
            if got.status == 200 and got.result["images"]:
                kept += 1

        async def run(first: int, count: int) -> None:
            numbers = iter(range(first, first + count))
            async with Client(program.url) as client, asyncio.TaskGroup() as group:

                async def work() -> None:
                    for job in numbers:
                        await one(client, job)

                for _ in range(at_once):
                    group.create_task(work())

        tasks, files = await _at_rest(program)
        await run(0, warm_up)
        here.engine.faults.rate = here.sandbox.faults.rate = rate
        before, began = program.rss_mib, time.perf_counter()
        await run(warm_up, jobs)
        outcome.seconds, outcome.jobs = time.perf_counter() - began, jobs
        here.engine.faults.rate = here.sandbox.faults.rate = 0
        outcome.rss = (before, program.rss_mib)
        outcome.faults = {"engine": here.engine.faults.count.total(), "sandbox": here.sandbox.faults.count.total()}

        give_up = time.monotonic() + SETTLE_SECONDS
        while True:
            now_tasks, now_files = await asyncio.to_thread(lambda: (program.loop_tasks, program.open_files))
            outcome.left = {
                "sessions": sum("/.s1vl/canary/" not in kernel.cwd for kernel in here.sandbox.sessions.values()),
                # Jobs that were answered keep the folder of their pictures, and nothing else does.
                "files": here.volume.engine_copies + max(0, here.volume.job_folders - kept - outcome.ends["hung_up"]),
                "tasks": max(0, now_tasks - tasks),
                "descriptors": max(0, now_files - files),
            }
            if not any(outcome.left.values()) or time.monotonic() > give_up:
                return outcome
            await asyncio.sleep(0.5)


async def _at_rest(program: Program) -> tuple[int, int]:
    """Tasks and file descriptors of an orchestrator that has nothing to do."""
    return await asyncio.to_thread(lambda: (program.loop_tasks, program.open_files))


def measure() -> Iterator[Figure]:
    """All figures of this part."""
    outcome = asyncio.run(soak(JOBS, warm_up=WARM_UP))
    yield Figure("orchestrator.soak", len(outcome.problems), goal=0)
    yield Figure("orchestrator.soak_jobs", outcome.jobs)
    for party, count in outcome.faults.items():
        yield Figure(f"orchestrator.soak_{party}_faults", count)
    for end, count in sorted(outcome.ends.items()):
        yield Figure(f"orchestrator.soak_end_{end}", count)
    for kind, count in outcome.left.items():
        yield Figure(f"orchestrator.soak_leaked_{kind}", count, goal=0)
    yield Figure("orchestrator.soak_jobs_per_second", outcome.jobs / outcome.seconds)
    yield Figure("orchestrator.soak_rss_begin", outcome.rss[0], "MiB")
    yield Figure("orchestrator.soak_rss_end", outcome.rss[1], "MiB")
