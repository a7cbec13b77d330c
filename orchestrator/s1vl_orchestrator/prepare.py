"""From a request's body to the first prompt, with its pictures on the volume and no longer in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s1vl_orchestrator.budget import ContextBudget, thinking_seconds
from s1vl_orchestrator.config import Config
from s1vl_orchestrator.conversation import Conversation, ShownImage
from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.images import Workers
from s1vl_orchestrator.inputs import Input, read_inputs
from s1vl_orchestrator.loop import Task
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.protocol.profile import Profile, load_profile
from s1vl_orchestrator.requests import Embedded, JobRequest, Prompt
from s1vl_orchestrator.workspace import Workspace


@dataclass(frozen=True)
class Prepared:
    """A job that can begin.

    Attributes:
        task: With the first prompt.
        files: The inputs' paths as the sandbox sees them.
        seconds: From the request's arrival to its answer.
        metadata: The client's own.
    """

    task: Task
    files: list[str]
    seconds: float
    metadata: dict[str, Any] | None


async def prepare(
    request: JobRequest, config: Config, workspace: Workspace, workers: Workers, arrived: float
) -> Prepared:
    """Find a request's pictures and write what the job needs of them. Nothing is written before all is checked.

    Raises:
        ApiError: For everything that is wrong with the request.
        OSError: If the volume refuses.
    """
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
    inputs = await read_inputs(
        request.prompt, workspace.paths, workers, limit=budget.images, pixels=budget.pixels_per_input
    )
    await workspace.open(inputs)
    files = [workspace.paths.to_sandbox(file) for file in workspace.input_files]
    shown = [await workspace.show(item.picture.copy, path) for item, path in zip(inputs, files, strict=True)]
    seconds = time_limit(request.deadline_seconds, config)
    task = Task(
        conversation=_first_prompt(request.prompt, inputs, shown, profile, workspace.paths),
        profile=profile,
        budget=budget,
        max_turns=min(request.max_turns or config.limits.max_turns, config.limits.max_turns),
        think_until=arrived + thinking_seconds(seconds),
        answer_until=arrived + seconds,
        sampling=request.sampling,
    )
    _check_room(task)
    return Prepared(task, files, seconds, request.metadata)


def time_limit(asked: float | None, config: Config) -> float:
    """Seconds from a request's arrival to its answer, given how many it asks for."""
    limit = config.limits.deadline_seconds
    return min(asked or limit, limit)


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
            index=number - 1,
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
