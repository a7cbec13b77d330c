"""The form of what `POST /process` answers, for OpenAPI and for tests: nothing is checked against it in production."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from s1vl_orchestrator.api.openapi import ErrorFacts
from s1vl_orchestrator.engine import Ended
from s1vl_orchestrator.loop import StopReason


class Usage(BaseModel):
    """Tokens of all turns together, prompts included: what the job cost."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)
    total_tokens: int = Field(ge=0)


class AnsweredMessage(BaseModel):
    """One message. `reasoning` is there where the last one has thinking apart from its answer."""

    role: Literal["user", "assistant", "tool"]
    content: str
    reasoning: str = ""


class EngineFacts(BaseModel):
    """What the engine did in a turn. Times are in seconds."""

    seconds: float = Field(ge=0)
    first_token_seconds: float | None
    attempts: int = Field(ge=1)
    prompt_tokens: int = Field(ge=0)
    cached_tokens: int | None
    completion_tokens: int = Field(ge=0)
    counted_by: Literal["engine", "estimate"]


CellStatus = Literal["ok", "error", "timeout", "lost"]


class CellFacts(BaseModel):
    """How the code of a turn ran; `images` is the number of pictures that it made."""

    status: CellStatus
    seconds: float = Field(ge=0)
    images: int = Field(ge=0)


class TurnFacts(BaseModel):
    """One turn.

    `ended`: the engine stopped, had no tokens left (`length`), went on behind the code and was left (`cut`), or the
    time was up. `forced` says why the answer had to be asked for, `problem` what was wrong with the turn; mostly empty.
    """

    turn: int = Field(ge=1)
    ended: Ended
    forced: str
    problem: str
    code: str | None
    engine: EngineFacts
    cell: CellFacts | None


class MadeImage(BaseModel):
    """A picture that the model's code made and the model saw: its path as the client sees it, and its URL here."""

    id: str
    path: str
    url: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class ProcessAnswer(BaseModel):
    """The answer is the last message; its role is always `assistant`. More fields may come."""

    id: str = Field(description="The job's; its pictures lie in `.s1vl/jobs/<id>/` in the tenant's folder.")
    messages: list[AnsweredMessage] = Field(min_length=1, description="The whole course, as text.")
    answer: str | None = Field(description="The last message's content; null when the model came to no answer.")
    stop_reason: StopReason
    detail: str = Field(description="More on the reason, or empty.")
    usage: Usage
    turns: list[TurnFacts]
    images: list[MadeImage]
    metadata: dict[str, Any] | None = Field(description="The request's.")


class TurnStart(BaseModel):
    """The engine has taken a turn up; with `restart` anew: what came of it before does not count."""

    turn: int = Field(ge=1)
    restart: Literal[True] = True


class ReasoningDelta(BaseModel):
    """More of the thinking; code and tags are not in it."""

    turn: int = Field(ge=1)
    text: str


class CodeEvent(BaseModel):
    """The code of a turn."""

    turn: int = Field(ge=1)
    code: str


class ExecStart(BaseModel):
    """The code runs."""

    turn: int = Field(ge=1)


class ExecResult(BaseModel):
    """How it ran: the text as the model reads it, and how many `image` events follow."""

    turn: int = Field(ge=1)
    status: CellStatus
    text: str
    seconds: float = Field(ge=0)
    images: int = Field(ge=0)


class ImageEvent(MadeImage):
    """A picture that the code made."""

    turn: int = Field(ge=1)


class AnswerDelta(BaseModel):
    """More of the answer. With `restart` what came before was not the answer, and this begins it anew."""

    turn: int = Field(ge=0)
    text: str
    restart: Literal[True] = True


class ErrorEvent(BaseModel):
    """The last event of a stream that failed, with the status that the answer would have had."""

    error: ErrorFacts
    status: int = Field(ge=400, le=599)
