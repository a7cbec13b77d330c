"""The body of `POST /v1/chat/completions`: OpenAI's fields and vLLM's, and which of them are taken. Pure.

An allow-list: what is not named here never reaches the engine, because some of vLLM's fields reach into other tenants'
caches, its files or its host. Fields that nobody knows are ignored, as vLLM does (evaluation harnesses send them).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from s1vl_orchestrator.errors import ApiError, ErrorCode
from s1vl_orchestrator.requests import (
    DEADLINE,
    MAX_MESSAGES,
    MAX_TURNS,
    Flag,
    ImagePart,
    JobRequest,
    Number,
    Part,
    Positive,
    Seconds,
    number,
    printable,
    to_prompt,
)

PLAIN_SUFFIX = ":reasoning"
"""After the model's name: the same as `"thinking_with_images": false`, for clients that can only name a model."""

MAX_BYTES = 4 * 1024 * 1024
"""All but the pictures: what makes work for an engine that all tenants share (tools, grammars, texts)."""

REFUSED = {
    "cache_salt": "the tenant's own is used",
    "chat_template": "the model's own is used",
    "chat_template_kwargs": "the model's own template is used as it is",
    "documents": "the model's template has no place for them",
    "mm_processor_kwargs": "pictures cost what the deployment says",
    "media_io_kwargs": "pictures cost what the deployment says",
    "priority": "all tenants' requests are equal",
    "kv_transfer_params": "they name other requests' caches",
    "vllm_xargs": "they reach into the engine",
    "logits_processors": "they are code",
    "request_id": "the engine gets one from here",
    "prompt_logprobs": "they switch the engine's prefix cache off",
    "return_token_ids": "they are not part of the answer",
    "use_beam_search": "one request would use the place of many",
    "functions": "use tools",
    "audio": "the model has no sound",
    "modalities": "the model answers with text",
}
"""Fields that vLLM or OpenAI know and that are not taken, and why."""

_PLAIN = "Of plain requests: goes on to the engine."

_SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "repetition_penalty",
)  # fmt: skip
_ONLY_PLAIN = (
    "tools", "tool_choice", "response_format", "structured_outputs", "logit_bias", "logprobs", "top_logprobs",
    "min_tokens", "stop_token_ids", "bad_words",
)  # fmt: skip
"""They would break the protocol of code and answers, or have no meaning for a job of many turns."""
FORWARDED = (
    *_SAMPLING, *_ONLY_PLAIN, "stop", "max_tokens", "max_completion_tokens", "n", "parallel_tool_calls",
    "reasoning_effort", "include_reasoning", "include_stop_str_in_output", "skip_special_tokens",
    "spaces_between_special_tokens", "ignore_eos",
)  # fmt: skip
"""What goes on to the engine of a plain request, as it is."""

# The engine's own types: 64 bits for a seed, 32 for all that counts or names tokens.
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63), BeforeValidator(number)]
Count = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(number)]
Most = Annotated[int, Field(ge=-1, lt=2**31), BeforeValidator(number)]
Few = Annotated[int, Field(ge=1, le=8), BeforeValidator(number)]
Penalty = Annotated[Number, Field(ge=-2, le=2)]


class ChatMessage(BaseModel):
    """One message. Fields that are not listed are ignored."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(BaseModel):
    """`stream_options`."""

    include_usage: Flag = False


class ChatRequest(BaseModel):
    """The request. Unknown fields are ignored; those of `REFUSED` are not taken."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    thinking_with_images: Flag | None = Field(
        default=None,
        description="Let the model run code on the pictures. The default is yes where there is a picture; false passes "
        f"the request on to the engine, as does the model's name with {PLAIN_SUFFIX} at its end.",
    )
    max_turns: Positive | None = Field(default=None, description=MAX_TURNS)
    deadline_seconds: Seconds | None = Field(default=None, description=DEADLINE)
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = Field(
        default=None, description="Bounds the final answer, not the thinking before it, when thinking with images."
    )
    max_completion_tokens: Positive | None = Field(default=None, description="As max_tokens, and before it.")
    stop: str | Annotated[list[str], Field(max_length=16)] | None = Field(
        default=None, description="Ends the final answer."
    )
    n: Few | None = Field(default=None, description="1 when thinking with images.")
    # The bounds are vLLM's own: a job would end in the middle with an error of the engine.
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Most | None = Field(default=None, description="0 and -1: all.")
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[Number, Field(gt=0)] | None = None
    tools: list[dict[str, Any]] | None = Field(default=None, description=_PLAIN)
    tool_choice: str | dict[str, Any] | None = Field(default=None, description=_PLAIN)
    parallel_tool_calls: Flag | None = Field(default=None, description=_PLAIN)
    response_format: dict[str, Any] | None = Field(default=None, description=_PLAIN)
    structured_outputs: dict[str, Any] | None = Field(default=None, description=_PLAIN)
    logit_bias: dict[str, Number] | None = Field(default=None, description=_PLAIN)
    logprobs: Flag | None = Field(default=None, description=_PLAIN)
    top_logprobs: Most | None = Field(default=None, description=_PLAIN)
    min_tokens: Count | None = Field(default=None, description=_PLAIN)
    stop_token_ids: list[Count] | None = Field(default=None, description=_PLAIN)
    bad_words: list[str] | None = Field(default=None, description=_PLAIN)
    reasoning_effort: str | None = Field(default=None, description=_PLAIN)
    include_reasoning: Flag | None = Field(default=None, description=_PLAIN)
    include_stop_str_in_output: Flag | None = Field(default=None, description=_PLAIN)
    skip_special_tokens: Flag | None = Field(default=None, description=_PLAIN)
    spaces_between_special_tokens: Flag | None = Field(default=None, description=_PLAIN)
    ignore_eos: Flag | None = Field(default=None, description=_PLAIN)

    @model_validator(mode="before")
    @classmethod
    def _can_be_passed_on(cls, value: Any) -> Any:
        return _printable(value)

    @property
    def plain(self) -> bool:
        """The request is for the engine alone."""
        if self.thinking_with_images is not None:
            return not self.thinking_with_images
        return self.model.endswith(PLAIN_SUFFIX) or not any(self._has_image(message) for message in self.messages)

    @property
    def include_usage(self) -> bool:
        """A stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def answer_limit(self) -> int | None:
        """Most tokens of the final answer."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def stops(self) -> list[str]:
        """Stop strings of the final answer."""
        return [self.stop] if isinstance(self.stop, str) else [stop for stop in self.stop or [] if stop]

    @staticmethod
    def _has_image(message: ChatMessage) -> bool:
        return isinstance(message.content, list) and any(part.type == "image_url" for part in message.content)


def _printable(value: Any) -> Any:
    """Texts that UTF-8 can carry, in a JSON value of any form."""
    match value:
        case str():
            return value if value.isascii() else printable(value)
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {_printable(name): _printable(item) for name, item in value.items()}
        case _:
            return value


def check(request: ChatRequest, model: str, size: int) -> None:
    """Refuse what is not taken.

    Args:
        request: The client's.
        model: The name of the model.
        size: Bytes of its body.

    Raises:
        ApiError: `model_not_found`, `not_supported`, or `body_too_large` for too much besides the pictures.
    """
    contents = [message.content for message in request.messages if isinstance(message.content, list)]
    urls = [part.image_url for parts in contents for part in parts if isinstance(part, ImagePart)]
    size -= sum(len(url if isinstance(url, str) else url.url) for url in urls)
    if size > MAX_BYTES:
        raise ApiError(
            ErrorCode.BODY_TOO_LARGE,
            f"The body has {size} bytes besides its pictures; {MAX_BYTES} are taken.",
            {"limit_bytes": MAX_BYTES},
        )
    if request.model.removesuffix(PLAIN_SUFFIX) != model:
        raise ApiError(
            ErrorCode.MODEL_NOT_FOUND,
            f"There is no model {request.model[:200]!r}; there is {model} and {model}{PLAIN_SUFFIX}.",
            {"param": "model"},
        )
    sent = request.model_extra or {}
    for name, why in REFUSED.items():
        if sent.get(name) is not None:
            raise ApiError(ErrorCode.NOT_SUPPORTED, f"{name} is not taken: {why}.", {"param": name})
    if request.plain:
        return
    for name in _ONLY_PLAIN:
        if getattr(request, name) not in (None, False, [], {}, {"type": "text"}, "none"):
            raise ApiError(
                ErrorCode.NOT_SUPPORTED,
                f'{name} cannot be used while thinking with images; send "thinking_with_images": false.',
                {"param": name},
            )
    if (request.n or 1) != 1:
        raise ApiError(ErrorCode.NOT_SUPPORTED, "n must be 1 while thinking with images.", {"param": "n"})


def to_job(request: ChatRequest) -> JobRequest:
    """The request as a job.

    Raises:
        ApiError: As `to_prompt`, and for messages of tools.
    """
    conversation: list[tuple[str, str | list[Part]]] = []
    for message in request.messages:
        if message.role == "tool" or message.tool_calls:
            raise ApiError(
                ErrorCode.NOT_SUPPORTED,
                "Messages of tools cannot be used while thinking with images.",
                {"param": "messages"},
            )
        role = "system" if message.role == "developer" else message.role
        conversation.append((role, message.content or ""))
    sampling = {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
    return JobRequest(to_prompt(conversation, []), request.max_turns, request.deadline_seconds, sampling=sampling)
