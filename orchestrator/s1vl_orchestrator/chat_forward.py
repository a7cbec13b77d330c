"""A plain chat request as the engine gets it. Pure."""

from __future__ import annotations

from typing import Any

from s1vl_orchestrator.chat_requests import FORWARDED, ChatRequest
from s1vl_orchestrator.conversation import ShownImage
from s1vl_orchestrator.requests import Embedded, Prompt, check_text, parts_of


def pictures_of(request: ChatRequest) -> Prompt:
    """Take the pictures of a plain request out of it, in order, and note their places.

    Raises:
        ApiError: `prompt_too_long`.
    """
    embedded: list[str] = []
    prompt = Prompt([(m.role, parts_of(m.content or "", embedded)) for m in request.messages], embedded, [])
    check_text(prompt.messages)
    for message in request.messages:
        message.content = [] if isinstance(message.content, list) else message.content
    return prompt


def engine_body(
    request: ChatRequest, prompt: Prompt, shown: dict[int, ShownImage], *, model: str, cache_salt: str
) -> dict[str, Any]:
    """The body for the engine of a plain request.

    Args:
        request: The client's.
        prompt: Its messages, from `pictures_of`.
        shown: The engine's copies of its pictures, by their number.
        model: The engine's name for the model.
        cache_salt: The tenant's.
    """
    body: dict[str, Any] = {name: value for name in FORWARDED if (value := getattr(request, name)) is not None}
    messages = []
    for message, (_, parts) in zip(request.messages, prompt.messages, strict=True):
        entry = message.model_dump(exclude={"content"}, exclude_none=True)
        # vLLM 0.16 to 0.19 read the new name alone, others the old one too.
        thinking = message.reasoning if message.reasoning is not None else message.reasoning_content
        if thinking is not None:
            entry |= {"reasoning": thinking, "reasoning_content": thinking}
        content: Any = [
            shown[part.index].part if isinstance(part, Embedded) else {"type": "text", "text": part} for part in parts
        ]
        if not isinstance(message.content, list):
            content = None if message.content is None else parts[0]
        messages.append({**entry, "content": content})
    body |= {"model": model, "messages": messages, "cache_salt": cache_salt}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body
