"""The JSON answer of a job. Pure."""

from __future__ import annotations

from typing import Any

from s1vl_orchestrator.cells import MadeImage
from s1vl_orchestrator.loop import Outcome, StopReason, Task, Turn
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.telling import image_facts

_NO_ANSWER = {
    StopReason.DEADLINE: "No answer was reached before the deadline.",
    StopReason.ENGINE_ERROR: "No answer was reached: the engine stopped answering.",
    StopReason.SANDBOX_UNAVAILABLE: "No answer was reached: the sandbox is not available.",
    StopReason.CONTEXT_FULL: "No answer was reached: the model's context is full.",
    StopReason.MAX_TURNS: "No answer was reached within the allowed turns.",
    StopReason.ANSWER: "The model gave no answer.",
}


def render(
    job_id: str,
    task: Task,
    outcome: Outcome,
    *,
    made: list[MadeImage],
    paths: TenantPaths,
    metadata: dict[str, Any] | None,
) -> dict[str, Any]:
    """The documented answer of `POST /process`; every path in it is the client's."""
    answer = None if outcome.answer is None else paths.to_client_text(outcome.answer)
    counts = [turn.tokens for turn in task.turns]
    usage = {"prompt_tokens": sum(count[0] for count in counts), "completion_tokens": sum(count[1] for count in counts)}
    return {
        "id": job_id,
        "messages": _trajectory(task, outcome, answer, paths),
        "answer": answer,
        "stop_reason": outcome.stop_reason.value,
        "detail": outcome.detail,
        "usage": {**usage, "total_tokens": sum(usage.values())},
        "turns": [_turn(number, turn, paths) for number, turn in enumerate(task.turns, 1)],
        "images": [image_facts(image, paths) for image in made],
        "metadata": metadata,
    }


def _trajectory(task: Task, outcome: Outcome, answer: str | None, paths: TenantPaths) -> list[dict[str, Any]]:
    """All messages but the system's, as text; the last one is the assistant's, with the answer alone as content."""
    messages: list[dict[str, Any]] = [
        {"role": message["role"], "content": paths.to_client_text(_flat(message["content"]))}
        for message in task.conversation.messages
        if message["role"] != "system"
    ]
    last = task.turns[-1].said if task.turns else None
    final: dict[str, Any] = {"role": "assistant", "content": answer or _NO_ANSWER[outcome.stop_reason]}
    if last is not None and messages[-1]["role"] == "assistant":
        messages.pop()
        final["reasoning"] = paths.to_client_text(last.reasoning.strip())
    return [*messages, final]


def _flat(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _turn(number: int, turn: Turn, paths: TenantPaths) -> dict[str, Any]:
    said = turn.said
    return {
        "turn": number,
        "ended": said.ended.value,
        "forced": turn.forced,
        "problem": turn.problem,
        "code": None if turn.code is None else paths.to_client_text(turn.code),
        "engine": {
            "seconds": round(said.seconds, 4),
            "first_token_seconds": None if said.first_token_seconds is None else round(said.first_token_seconds, 4),
            "attempts": said.attempts,
            "prompt_tokens": turn.tokens[0],
            "cached_tokens": said.cached_tokens,
            "completion_tokens": turn.tokens[1],
            "counted_by": "engine" if turn.counted else "estimate",
        },
        "cell": None
        if turn.result is None
        else {
            "status": turn.result.status,
            "seconds": round(turn.result.seconds, 4),
            "images": len(turn.result.images),
        },
    }
