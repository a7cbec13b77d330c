"""Where a conversation stands: the question, what came back since, and whether an answer is demanded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hack.engine_sim.prompt import IMAGE_MARK, Conversation, Turn
from hack.engine_sim.vision import ImageFacts

_RESULT = re.compile(r"<tool_response>|<interpreter>|<sandbox_output>|^Code execution result", re.MULTILINE)
_FORCED = re.compile(
    r"(?i)\banswer now\b|\bmust (?:now )?answer\b|\bno (?:more|further) (?:code|tools?|turns?)\b"
    r"|\b(?:cannot|can't|may not|must not|do not|don't) (?:run|write|use|emit|call) "
    r"(?:any )?(?:more )?(?:code|tools?)\b"
)


@dataclass(frozen=True)
class Situation:
    """What the policy decides by.

    Attributes:
        question: text of the last real question (system prompt not included).
        question_images: the images sent with it.
        turn: assistant messages since the question.
        result: text that came back after the last assistant message; "" before the first.
        result_images: the images that came back with it.
        earlier: text that came back before that, for an answer under pressure.
        forced: the last message demands an answer without more code.
        code_allowed: the prompt speaks of `<code>`.
        answer_tags: the prompt speaks of `<answer>`.
    """

    question: str
    question_images: tuple[ImageFacts, ...]
    turn: int
    result: str
    result_images: tuple[ImageFacts, ...]
    earlier: str
    forced: bool
    code_allowed: bool
    answer_tags: bool


def read_situation(conversation: Conversation) -> Situation:
    """Work out the situation of a conversation of at least one message."""
    turns = conversation.turns
    asked = max((at for at in range(len(turns)) if _is_question(turns, at)), default=0)
    spoken = [at for at in range(asked + 1, len(turns)) if turns[at].role == "assistant"]
    since = turns[spoken[-1] + 1 :] if spoken else []
    before = turns[asked + 1 : spoken[-1]] if spoken else []
    demand = _text(since) if spoken else ""
    instructions = _text([turn for turn in turns[: asked + 1] if turn.role in ("system", "developer", "user")])
    return Situation(
        question=_text([turns[asked]]),
        question_images=_facts([turns[asked]]),
        turn=len(spoken),
        result=_text(since),
        result_images=_facts(since),
        earlier=_text([turn for turn in before if turn.role != "assistant"]),
        forced=bool(_FORCED.search(demand)),
        code_allowed="<code>" in instructions,
        answer_tags="<answer>" in instructions,
    )


def _is_question(turns: list[Turn], at: int) -> bool:
    turn = turns[at]
    if turn.role != "user" or _RESULT.search(turn.text):
        return False
    follows_assistant = any(earlier.role == "assistant" for earlier in turns[:at])
    return not (follows_assistant and _FORCED.search(turn.text))


def _text(turns: list[Turn]) -> str:
    return "\n".join(turn.text.replace(IMAGE_MARK, "") for turn in turns)


def _facts(turns: list[Turn]) -> tuple[ImageFacts, ...]:
    return tuple(image.facts for turn in turns for image in turn.images)
