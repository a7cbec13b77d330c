"""The turn loop: the model thinks and writes code, the tenant's kernel runs it, the model looks at what came out.

Everything that can run out (turns, time, context, images, patience with repetition) ends in the same place: one last
turn in which the model must answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from s1vl_orchestrator.budget import ContextBudget
from s1vl_orchestrator.conversation import Conversation, ShownImage
from s1vl_orchestrator.engine import Ended, Said
from s1vl_orchestrator.engine_errors import ContextFullError, EngineUnavailableError, TooManyImagesError
from s1vl_orchestrator.protocol.parser import Answer, Code, Malformed, parse, parse_final
from s1vl_orchestrator.protocol.profile import Profile
from s1vl_orchestrator.sandbox import SandboxUnavailableError


class StopReason(StrEnum):
    """Why a job ended. Everything but `answer` says what cut it short; there may be an answer all the same."""

    ANSWER = "answer"
    MAX_TURNS = "max_turns"
    DEADLINE = "deadline"
    CONTEXT_FULL = "context_full"
    ENGINE_ERROR = "engine_error"
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"


@dataclass(frozen=True)
class Result:
    """What running code gave: the status of the cell, text for the model, and pictures with their captions."""

    status: str
    text: str
    images: list[ShownImage]
    captions: list[str]
    seconds: float


@dataclass
class Turn:
    """One turn, for the answer's `turns` and for logs.

    Attributes:
        prompt_estimate: Tokens of its prompt as we count them.
    """

    said: Said
    prompt_estimate: int
    forced: str = ""
    code: str | None = None
    result: Result | None = None
    problem: str = ""

    @property
    def counted(self) -> bool:
        """The engine has counted the turn's tokens."""
        return self.said.prompt_tokens is not None and self.said.completion_tokens is not None

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of prompt and completion: the engine's numbers, or else our estimate and one for each piece."""
        prompt, completion = self.said.prompt_tokens, self.said.completion_tokens
        return (
            self.prompt_estimate if prompt is None else prompt,
            self.said.pieces if completion is None else completion,
        )


@dataclass
class Task:
    """A job as the loop sees it. Times are `time.monotonic()` seconds.

    Attributes:
        think_until: Ordinary turns and cells end here, which leaves time for the final answer.
        answer_until: The final answer ends here.
        sampling: In place of the profile's, name by name.
        images_full: The last result had more pictures than there was room for.
    """

    conversation: Conversation
    profile: Profile
    budget: ContextBudget
    max_turns: int
    think_until: float
    answer_until: float
    sampling: dict[str, Any] = field(default_factory=dict)
    images_full: bool = False
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """How a job ended; `answer` is None when the model never came to one."""

    stop_reason: StopReason
    answer: str | None
    detail: str = ""


class Mind(Protocol):
    """Says turns: the engine, with the job's cache salt."""

    async def __call__(self, conversation: Conversation, max_tokens: int, until: float, *, code_allowed: bool) -> Said:
        """Say one turn."""


class Hands(Protocol):
    """Runs code: the job's kernel and its folder."""

    def refused(self, code: str) -> None:
        """Take note of code that is not run, because it was run already."""

    async def __call__(self, code: str, until: float) -> Result:
        """Run one cell, which may take until then."""


@dataclass(frozen=True)
class _Force:
    stop_reason: StopReason
    why: str


_REPEATED = _Force(StopReason.ANSWER, "You keep running the same code.")
_MALFORMED = _Force(StopReason.ANSWER, "Two turns in a row had neither code nor an answer.")
_NO_TIME = _Force(StopReason.DEADLINE, "The time is up.")
_NO_TURNS = _Force(StopReason.MAX_TURNS, "This was the last code that could be run.")
_NO_ROOM = _Force(StopReason.CONTEXT_FULL, "There is no room for more turns.")
_NO_SANDBOX = _Force(StopReason.SANDBOX_UNAVAILABLE, "The code could not be run: the sandbox is not available.")


@dataclass
class _Patience:
    seen: set[str] = field(default_factory=set)
    repeated: int = 0
    malformed: int = 0


async def think(task: Task, mind: Mind, hands: Hands) -> Outcome:
    """Run a job to its end.

    Raises:
        EngineUnavailableError, ContextFullError, TooManyImagesError: Only while the engine has not said a single turn.
    """
    patience = _Patience()
    try:
        while not (force := _run_out(task)):
            room = task.budget.turn_tokens(task.conversation.tokens)
            try:
                said = await mind(task.conversation, room, task.think_until, code_allowed=True)
            except (ContextFullError, TooManyImagesError) as error:
                if task.turns:
                    force = _NO_ROOM
                    break
                if not _learned(task, error):
                    raise
                continue
            step = await _act(task, _remember(task, said), patience, hands)
            if isinstance(step, Outcome):
                return step
            if step:
                force = step
                break
        return await _answer_now(task, mind, force)
    except EngineUnavailableError as error:
        if not task.turns:
            raise
        return Outcome(StopReason.ENGINE_ERROR, _last_words(task), str(error))


async def _act(task: Task, turn: Turn, patience: _Patience, hands: Hands) -> Outcome | _Force | None:
    """Do what a turn asks for. Returns how the job ends, why it must end, or None to go on."""
    said, texts = turn.said, task.profile.texts
    intent = parse(said.reasoning, said.content, task.profile, truncated=said.ended in (Ended.LENGTH, Ended.TIME))
    if said.ended is Ended.TIME or time.monotonic() >= task.think_until:
        whole = isinstance(intent, Answer) and said.ended is not Ended.TIME
        return Outcome(StopReason.ANSWER, intent.text) if whole and isinstance(intent, Answer) else _NO_TIME
    match intent:
        case Answer(text):
            return Outcome(StopReason.CONTEXT_FULL if said.ended is Ended.LENGTH else StopReason.ANSWER, text)
        case Code(source) if source.strip() in patience.seen:
            turn.code, turn.problem = source, "repeated_code"
            hands.refused(source)
            patience.repeated += 1
            if patience.repeated > 1:
                return _REPEATED
            task.conversation.add_word(texts.repeated)
        case Code(source):
            patience.seen.add(source.strip())
            patience.malformed = 0
            turn.code = source
            try:
                turn.result = await hands(source, task.think_until)
            except SandboxUnavailableError as error:
                turn.problem = f"sandbox_unavailable: {error}"
                return _NO_SANDBOX
            _show(task, turn.result)
        case Malformed(why):
            turn.problem = "malformed"
            patience.malformed += 1
            if patience.malformed > 1:
                return _MALFORMED
            task.conversation.add_word(texts.malformed.format(why=why))
    return None


def _learned(task: Task, error: Exception) -> bool:
    """Take the engine's own count where ours was too low; returns whether a shorter turn fits then."""
    counted = error.prompt_tokens if isinstance(error, ContextFullError) else 0
    if counted <= task.conversation.tokens or not task.budget.turn_tokens(counted):
        return False
    task.conversation.tokens = counted
    return True


def _run_out(task: Task) -> _Force | None:
    if time.monotonic() >= task.think_until:
        return _NO_TIME
    if len(task.turns) >= task.max_turns:
        return _NO_TURNS
    if task.images_full or (task.turns and not task.budget.turn_tokens(task.conversation.tokens)):
        return _NO_ROOM
    return None


def _remember(task: Task, said: Said, forced: str = "") -> Turn:
    turn = Turn(said, task.conversation.tokens, forced)
    if said.reasoning or said.content:
        task.conversation.add_turn(
            said.reasoning,
            said.content,
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
        )
    task.turns.append(turn)
    return turn


def _show(task: Task, result: Result) -> None:
    """Add a result. When its pictures are too many, the oldest ones made before give way, and it is the last result."""
    conversation = task.conversation
    most = task.budget.images - len(result.images)
    # To go on would rewrite the whole prompt once more for every further result.
    task.images_full = conversation.image_count > most
    while conversation.image_count > most and conversation.drop_oldest():
        pass
    free = max(0, task.budget.images - conversation.image_count)
    text = result.text
    if free < len(result.images):
        text += f"\n[{len(result.images) - free} more pictures cannot be shown]"
    conversation.add_result(text, result.images[:free], result.captions[:free])


async def _answer_now(task: Task, mind: Mind, force: _Force) -> Outcome:
    """The last turn: no more code, no stop strings, and a little time kept back for it."""
    conversation = task.conversation
    if task.turns or force is not _NO_TIME:
        conversation.add_word(task.profile.texts.answer_now.format(why=force.why))
    for _ in range(2):
        while not (room := task.budget.answer_tokens(conversation.tokens)) and conversation.drop_oldest():
            pass
        try:
            said = await mind(conversation, max(room, 64), task.answer_until, code_allowed=False)
        except (ContextFullError, TooManyImagesError) as error:
            # One shrinking step: all pictures made on the way go, then once more.
            detail = str(error)
            while conversation.drop_oldest():
                pass
            continue
        turn = _remember(
            task, said, force.stop_reason.value if force.stop_reason is not StopReason.ANSWER else force.why
        )
        answer = parse_final(said.reasoning, said.content, task.profile, truncated=said.ended is not Ended.STOP)
        stop_reason = force.stop_reason
        if said.ended is Ended.TIME:
            stop_reason = StopReason.DEADLINE
            turn.problem = "cut off by the deadline"
        return Outcome(stop_reason, answer or _last_words(task))
    return Outcome(StopReason.CONTEXT_FULL, _last_words(task), detail)


def _last_words(task: Task) -> str | None:
    """The best there is when no final answer came: the last text that was meant for the reader."""
    for turn in reversed(task.turns):
        text = parse_final("", turn.said.content, task.profile)
        if text:
            return text
    return None
