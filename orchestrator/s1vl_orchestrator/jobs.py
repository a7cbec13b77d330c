"""One job from its request to its answer, and everything that must be gone afterwards."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from s1vl_orchestrator import answers
from s1vl_orchestrator.cells import JobCells, init_code
from s1vl_orchestrator.config import Config
from s1vl_orchestrator.engine import EngineClient
from s1vl_orchestrator.engine_errors import ContextFullError, EngineUnavailableError, TooManyImagesError
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.events import Listener
from s1vl_orchestrator.images import Workers
from s1vl_orchestrator.job_kernel import JobKernel
from s1vl_orchestrator.loop import Outcome, Result, Task, think
from s1vl_orchestrator.mind import EngineMind
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.prepare import prepare
from s1vl_orchestrator.requests import JobRequest
from s1vl_orchestrator.sandbox import Grants
from s1vl_orchestrator.sandbox_pods import SandboxPods
from s1vl_orchestrator.telemetry import Metrics, job_id
from s1vl_orchestrator.telling import Teller
from s1vl_orchestrator.workspace import EngineNames, Workspace

log = logging.getLogger(__name__)

SESSION_SLACK_SECONDS = 120.0
"""How long after its deadline a job's session is surely an orphan."""


@dataclass(frozen=True)
class Place:
    """Where a tenant's jobs run: fixed for a job when it starts, whatever the configuration becomes meanwhile."""

    tenant: str
    config: Config
    paths: TenantPaths
    engine: EngineClient
    sandboxes: SandboxPods
    names: EngineNames


@dataclass(frozen=True)
class Tools:
    """What all jobs of the process share.

    Attributes:
        workers: Threads for pictures and files.
        preparing: Bounds how many jobs have their bodies and pictures in memory at once.
    """

    workers: Workers
    metrics: Metrics
    preparing: asyncio.Semaphore


async def run_job(
    request: JobRequest,
    place: Place,
    tools: Tools,
    arrived: float,
    *,
    listen: Listener,
    shown: bool,
    held: AsyncExitStack,
) -> dict[str, Any]:
    """Run a job and return the JSON answer.

    Args:
        request: What to do. The pictures are taken out of it.
        place: The tenant's clients and paths.
        tools: What all jobs share.
        arrived: `time.monotonic()` of the request's arrival: the deadline counts from there.
        listen: Is told what happens.
        shown: The client sees it at once, so that a turn of which it has seen something cannot be asked for again.
        held: Has a place of `tools.preparing`; closed as soon as the pictures are out of memory.

    Raises:
        ApiError: For everything that gives no answer at all. Nothing is left behind then.
    """
    identity = secrets.token_hex(12)
    job_id.set(identity)
    config, workers = place.config, tools.workers
    workspace = Workspace(place.paths, identity, place.names, workers)
    kernel: JobKernel | None = None
    keep = False
    try:
        ready = await prepare(request, config, workspace, workers, arrived)
        await held.aclose()
        task = ready.task
        output = place.paths.to_sandbox(workspace.output)
        life = ready.seconds + SESSION_SLACK_SECONDS
        grants = Grants(output, (*ready.files, place.paths.to_sandbox(workspace.folder)))
        init = init_code(ready.files, output, task.profile)
        kernel = JobKernel(place.sandboxes, init, grants, life)
        cells = JobCells(
            kernel,
            workspace,
            task.profile,
            budget=task.budget,
            workers=workers,
            cell_seconds=config.sandbox.execution_timeout_seconds,
        )
        teller = Teller(listen, place.paths)
        salt = place.names.cache_salt
        with place.engine.seat() as seat:
            mind = EngineMind(place.engine, seat, workspace, task, teller, cache_salt=salt, shown=shown)
            outcome = await think(task, mind, _JobHands(cells, teller))
        _check_said_something(task, outcome, ready.seconds)
        keep = True
        answer = answers.render(identity, task, outcome, made=cells.made, paths=place.paths, metadata=ready.metadata)
    except FAILURES as error:
        raise as_api_error(error, config, len(workspace.input_files)) from error
    finally:
        # Shielded: a client that hangs up cancels the job, not the tidying up.
        await asyncio.shield(asyncio.ensure_future(_tidy(kernel, workspace, keep=keep)))
    metrics = tools.metrics
    metrics.jobs.labels(place.tenant, outcome.stop_reason.value).inc()
    metrics.job_turns.observe(len(task.turns))
    metrics.job_seconds.observe(time.monotonic() - arrived)
    teller.done(answer)
    log.info("job done: %s after %d turns %s", outcome.stop_reason.value, len(task.turns), outcome.detail)
    return answer


async def _tidy(kernel: JobKernel | None, workspace: Workspace, *, keep: bool) -> None:
    try:
        if kernel is not None:
            await kernel.close()
    finally:
        await workspace.close(keep=keep)


FAILURES = (OSError, EngineUnavailableError, ContextFullError, TooManyImagesError)


def as_api_error(error: Exception, config: Config, images: int) -> ApiError:
    """What a client is told of a failure of the volume or the engine."""
    match error:
        case ContextFullError():
            limit = config.engine.max_model_len
            return ApiError(ErrorCode.PROMPT_TOO_LONG, str(error), {"limit_tokens": limit})
        case TooManyImagesError():
            return ApiError(ErrorCode.TOO_MANY_IMAGES, str(error), {"images": images})
        case OSError():
            log.error("the image volume failed", exc_info=error)
            message = f"The image volume refused: {error.strerror or error}."
            return ApiError(ErrorCode.STORAGE_UNAVAILABLE, message, retry_after=10)
        case _:
            return ApiError(ErrorCode.ENGINE_UNAVAILABLE, f"The engine does not answer: {error}.", retry_after=5)


@dataclass(frozen=True)
class _JobHands:
    cells: JobCells
    teller: Teller

    def refused(self, code: str) -> None:
        self.teller.code(code)

    async def __call__(self, code: str, until: float) -> Result:
        self.teller.code(code)
        self.teller.running()
        before = len(self.cells.made)
        result = await self.cells(code, until)
        self.teller.result(result, self.cells.made[before:])
        return result


def _check_said_something(task: Task, outcome: Outcome, seconds: float) -> None:
    if outcome.answer is None and not any(turn.said.reasoning or turn.said.content for turn in task.turns):
        raise ApiError(
            ErrorCode.DEADLINE_EXCEEDED,
            f"The model said nothing within the {seconds:.0f} s that the request had.",
            {"deadline_seconds": seconds, "stop_reason": outcome.stop_reason.value},
        )
