"""One job from its request to its answer, and everything that must be gone afterwards."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

from s1vl_orchestrator import answers
from s1vl_orchestrator.budget import ContextBudget
from s1vl_orchestrator.cells import JobCells, init_code
from s1vl_orchestrator.config import Config
from s1vl_orchestrator.conversation import Conversation, ShownImage
from s1vl_orchestrator.engine import EngineClient, Said
from s1vl_orchestrator.engine_errors import ContextFullError, EngineUnavailableError, TooManyImagesError
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.images import Workers
from s1vl_orchestrator.inputs import Input, read_inputs
from s1vl_orchestrator.loop import Outcome, Task, think
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.protocol.profile import Profile, load_profile
from s1vl_orchestrator.requests import Embedded, ProcessRequest, Prompt, to_prompt
from s1vl_orchestrator.sandbox import JobKernel, SandboxClient, Sweeper
from s1vl_orchestrator.telemetry import Metrics, job_id
from s1vl_orchestrator.workspace import EngineNames, Workspace

log = logging.getLogger(__name__)

ANSWER_RESERVE_SECONDS = 45.0
ANSWER_RESERVE_SHARE = 0.3
SESSION_SLACK_SECONDS = 120.0
"""How long after its deadline a job's session is surely an orphan."""


@dataclass(frozen=True)
class Place:
    """Where a tenant's jobs run: fixed for a job when it starts, whatever the configuration becomes meanwhile."""

    tenant: str
    config: Config
    paths: TenantPaths
    engine: EngineClient
    sandbox: SandboxClient
    sweeper: Sweeper
    names: EngineNames


def time_limit(request: ProcessRequest, config: Config) -> float:
    """Seconds from the request's arrival to its answer."""
    limit = config.limits.deadline_seconds
    return min(request.deadline_seconds or limit, limit)


async def run_job(
    request: ProcessRequest, place: Place, workers: Workers, metrics: Metrics, arrived: float
) -> dict[str, Any]:
    """Run a job and return the JSON answer.

    Args:
        request: The checked body.
        place: The tenant's clients and paths.
        workers: Threads for pictures and files.
        metrics: Where it is counted.
        arrived: `time.monotonic()` of the request's arrival: the deadline counts from there.

    Raises:
        ApiError: For everything that gives no answer at all. Nothing is left behind then.
    """
    identity = secrets.token_hex(12)
    job_id.set(identity)
    config = place.config
    profile = load_profile(config.protocol)
    limits = profile.limits
    budget = ContextBudget.fit(
        context=config.engine.max_model_len,
        images=config.engine.images_per_prompt,
        turn=limits.turn_tokens,
        answer=limits.answer_tokens,
        input_pixels=limits.input_pixels,
        new_pixels=limits.new_pixels,
    )
    prompt = to_prompt(request)
    inputs = await read_inputs(prompt, place.paths, budget, workers)
    workspace = Workspace(place.paths, identity, place.names, workers)
    keep = False
    kernel: JobKernel | None = None
    try:
        await workspace.open(inputs)
        files = [place.paths.to_sandbox(file) for file in workspace.input_files]
        shown = [await workspace.show(item.picture.copy, path) for item, path in zip(inputs, files, strict=True)]
        seconds = time_limit(request, config)
        task = Task(
            conversation=_first_prompt(prompt, inputs, shown, profile, place.paths),
            profile=profile,
            budget=budget,
            max_turns=min(request.max_turns or config.limits.max_turns, config.limits.max_turns),
            think_until=arrived + seconds - min(ANSWER_RESERVE_SECONDS, seconds * ANSWER_RESERVE_SHARE),
            answer_until=arrived + seconds,
        )
        _check_room(task)
        output = place.paths.to_sandbox(workspace.output)
        life = seconds + SESSION_SLACK_SECONDS
        kernel = JobKernel(place.sandbox, place.sweeper, init_code(files, output), output, life)
        cells = JobCells(
            kernel,
            workspace,
            profile,
            budget=budget,
            workers=workers,
            cell_seconds=config.sandbox.execution_timeout_seconds,
        )
        outcome = await think(task, _EngineMind(place, workspace, profile), cells)
        _check_said_something(task, outcome, seconds)
        keep = True
        answer = answers.render(identity, task, outcome, made=cells.made, paths=place.paths, metadata=request.metadata)
    except OSError as error:
        log.exception("the image volume failed")
        raise ApiError(
            ErrorCode.STORAGE_UNAVAILABLE, f"The image volume refused: {error.strerror or error}.", retry_after=10
        ) from error
    except EngineUnavailableError as error:
        raise ApiError(ErrorCode.ENGINE_UNAVAILABLE, f"The engine does not answer: {error}.", retry_after=5) from error
    except ContextFullError as error:
        raise ApiError(ErrorCode.PROMPT_TOO_LONG, str(error), {"limit_tokens": budget.context}) from error
    except TooManyImagesError as error:
        raise ApiError(ErrorCode.TOO_MANY_IMAGES, str(error), {"images": len(inputs)}) from error
    finally:
        # Shielded: a client that hangs up cancels the job, not the tidying up.
        await asyncio.shield(asyncio.ensure_future(_tidy(kernel, workspace, keep=keep)))
    metrics.jobs.labels(place.tenant, outcome.stop_reason.value).inc()
    metrics.job_turns.observe(len(task.turns))
    metrics.job_seconds.observe(time.monotonic() - arrived)
    log.info("job done: %s after %d turns %s", outcome.stop_reason.value, len(task.turns), outcome.detail)
    return answer


async def _tidy(kernel: JobKernel | None, workspace: Workspace, *, keep: bool) -> None:
    try:
        if kernel is not None:
            await kernel.close()
    finally:
        await workspace.close(keep=keep)


@dataclass(frozen=True)
class _EngineMind:
    place: Place
    workspace: Workspace
    profile: Profile

    async def __call__(self, conversation: Conversation, max_tokens: int, until: float, *, code_allowed: bool) -> Said:
        missing = await self.workspace.missing_copies()
        if missing:
            raise FileNotFoundError(2, "the engine's copies of the pictures are gone", str(missing[0]))
        return await self.place.engine.ask(
            conversation.messages,
            self.profile,
            max_tokens=max_tokens,
            until=until,
            cache_salt=self.place.names.cache_salt,
            code_allowed=code_allowed,
        )


def _first_prompt(
    prompt: Prompt, inputs: list[Input], shown: list[ShownImage], profile: Profile, paths: TenantPaths
) -> Conversation:
    """System text, then the client's messages; pictures without a place of their own come first in the last one."""
    conversation = Conversation(profile)
    texts = profile.texts
    listed = {item.client_path: item.file for item in inputs if item.client_path and item.file}
    by_index = {index: shown[at] for at, item in enumerate(inputs) for index in item.embedded}
    system = [texts.system]
    placed: list[tuple[str, list[str | ShownImage]]] = []
    for role, parts in prompt.messages:
        content: list[str | ShownImage] = [
            by_index[part.index] if isinstance(part, Embedded) else paths.to_sandbox_text(part, listed)
            for part in parts
        ]
        if role == "system":
            system += [part for part in content if isinstance(part, str)]
            continue
        placed.append((role, content))
    table = [texts.images]
    for number, (item, image) in enumerate(zip(inputs, shown, strict=True), 1):
        picture = item.picture
        line = texts.image.format(
            n=number,
            path=image.path,
            width=picture.width,
            height=picture.height,
            shown_width=image.width,
            shown_height=image.height,
        )
        table.append(line + (texts.rotated_image if picture.rotated else ""))
    loose = [image for item, image in zip(inputs, shown, strict=True) if not item.embedded]
    placed[-1] = (placed[-1][0], [*loose, *placed[-1][1], "\n\n" + "\n".join(table)])
    conversation.add("system", ["\n\n".join(system)])
    for role, content in placed:
        conversation.add(role, content)
    return conversation


def _check_room(task: Task) -> None:
    budget, tokens = task.budget, task.conversation.tokens
    if not budget.turn_tokens(tokens):
        raise ApiError(
            ErrorCode.PROMPT_TOO_LONG,
            f"Text and pictures need about {tokens} tokens; of the context of {budget.context}, "
            f"{budget.answer + budget.margin} are kept for the answer.",
            {"prompt_tokens": tokens, "limit_tokens": budget.context - budget.answer - budget.margin},
        )


def _check_said_something(task: Task, outcome: Outcome, seconds: float) -> None:
    if outcome.answer is None and not any(turn.said.reasoning or turn.said.content for turn in task.turns):
        raise ApiError(
            ErrorCode.DEADLINE_EXCEEDED,
            f"The model said nothing within the {seconds:.0f} s that the request had.",
            {"deadline_seconds": seconds, "stop_reason": outcome.stop_reason.value},
        )
