"""Requests as they come in and answers as they go out, field for field."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict

from hack.engine_sim.errors import ApiError
from hack.engine_sim.versions import Behaviour

_KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")


class StreamOptions(BaseModel):
    """`stream_options`. Continuous statistics are given only together with the last chunk's."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class ChatRequest(BaseModel):
    """`POST /v1/chat/completions`; fields that are not here are ignored, as vLLM ignores unknown ones."""

    model_config = ConfigDict(extra="ignore")

    messages: list[dict[str, Any]]
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    include_reasoning: bool = True
    cache_salt: str | None = None
    structured_outputs: dict[str, Any] | None = None
    n: int = 1

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else [stop for stop in self.stop or [] if stop]

    @property
    def limit(self) -> int | None:
        """The output limit under either of its names."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TokenizeRequest(BaseModel):
    """`POST /tokenize`, for messages or for a plain prompt."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None


def forced_text(structured: dict[str, Any] | None) -> str | None:
    """Return the text that `structured_outputs` leaves as the only possible one, or None without any.

    Raises:
        ApiError: 400 for two kinds at once, a bad pattern, or a constraint with more than one possible text (a list of
            choices gives the first).
    """
    given = {kind: value for kind, value in (structured or {}).items() if kind in _KINDS and value is not None}
    if not given:
        return None
    if len(given) > 1:
        raise ApiError(
            "You can only use one kind of structured outputs constraint but multiple are specified: "
            + ", ".join(sorted(given))
        )
    kind, value = next(iter(given.items()))
    if kind == "choice" and isinstance(value, list) and value:
        return str(value[0])
    if kind == "regex" and isinstance(value, str):
        return _literal(value)
    raise ApiError(f"The engine simulator knows structured_outputs.choice and literal regex only, not {kind}.")


def _literal(pattern: str) -> str:
    text = re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)
    try:
        fits = re.fullmatch(pattern, text)
    except re.error as error:
        raise ApiError(f"Invalid regex: {error}") from error
    if not fits:
        raise ApiError("The engine simulator takes a regex only where it is an escaped text.")
    return text


def reasoning_fields(text: str | None, behaviour: Behaviour) -> dict[str, str | None]:
    """Return the reasoning under the name or names that the version uses."""
    fields: dict[str, str | None] = {}
    if behaviour.field_reasoning:
        fields["reasoning"] = text
    if behaviour.field_reasoning_content:
        fields["reasoning_content"] = text
    return fields


def usage_of(
    prompt: int, completion: int, cached: int | None, reasoning: int, behaviour: Behaviour
) -> dict[str, object]:
    """Return the `usage` object; `cached` is None unless the server was started to report it."""
    usage: dict[str, object] = {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None if cached is None else {"cached_tokens": cached},
    }
    if behaviour.counts_reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def sse(payload: object) -> bytes:
    """Return one server-sent event with a JSON payload."""
    return b"data: " + json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
