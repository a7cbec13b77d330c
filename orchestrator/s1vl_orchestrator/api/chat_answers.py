"""The form of what the endpoints below `/v1` answer, for OpenAPI and for tests. Nothing is checked in production.

Of a plain request the answer is the engine's own: what is required here is what every vLLM sends, and more may come.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from s1vl_orchestrator.api.process_answers import MadeImage, TurnFacts
from s1vl_orchestrator.loop import StopReason


class _Open(BaseModel):
    """The engine may say more."""

    model_config = ConfigDict(extra="allow")


class ChatUsage(_Open):
    """Tokens; of all turns together where the model thinks with images."""

    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    total_tokens: int = Field(ge=0)
    prompt_tokens_details: dict[str, Any] | None = None


class JobFacts(BaseModel):
    """What `POST /process` says besides its messages."""

    id: str
    stop_reason: StopReason
    detail: str
    turns: list[TurnFacts]
    images: list[MadeImage]


class ChatAnswerMessage(_Open):
    """The answer. `reasoning` and `reasoning_content` are the same text."""

    role: Literal["assistant"]
    content: str | None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatChoice(_Open):
    """One answer."""

    index: int = Field(ge=0)
    message: ChatAnswerMessage
    finish_reason: str = Field(description="`stop` or `length`; of a plain request also the engine's other reasons.")


class ChatCompletion(_Open):
    """A chat completion. `thinking_with_images` is absent from a plain request's."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice] = Field(min_length=1)
    usage: ChatUsage
    thinking_with_images: JobFacts | None = None


class ChatDelta(_Open):
    """More of the answer."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatChunkChoice(_Open):
    """More of one answer."""

    index: int = Field(ge=0)
    delta: ChatDelta
    finish_reason: str | None = None


class ChatCompletionChunk(_Open):
    """A piece of a streamed chat completion. `thinking_with_images` comes with the `finish_reason`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: ChatUsage | None = None
    thinking_with_images: JobFacts | None = None


class ModelFacts(BaseModel):
    """A model that can be named."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int = Field(ge=1, description="Tokens of prompt and answer together.")


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"]
    data: list[ModelFacts]
