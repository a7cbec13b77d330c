"""The errors of the HTTP API, in vLLM's shape and words."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

# vLLM's own patterns; what fits neither, such as /etc/hostname, is shown.
_PATHS = (
    re.compile(r"/(?:home|usr|opt|var|tmp|root|lib|mnt|srv)(?:/[\w.\-]+)+"),
    re.compile(r"(?:/[\w\-]+)+/[\w\-]+\.\w+"),
)


def masked(message: str) -> str:
    """Return an error's text with most paths of the server replaced by `<path>`, as vLLM does."""
    for pattern in _PATHS:
        message = pattern.sub("<path>", message)
    return message


class ApiError(Exception):
    """An answer other than 200: `{"error": {"message", "type", "param", "code"}}`.

    Attributes:
        status: HTTP status, repeated as `code` in the body.
        kind: vLLM's `type`.
        param: the request's field at fault, or None.
    """

    def __init__(self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None):
        super().__init__(message)
        self.message = masked(message)
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def bad_value(message: str, param: str, value: object = None) -> ApiError:
    """Return vLLM's 400 for one field: the message ends in `(parameter=..., value=...)`, the value where given."""
    suffix = f"(parameter={param})" if value is None else f"(parameter={param}, value={value})"
    return ApiError(f"{message} {suffix}", param=param)


def unknown_model(name: str, served: tuple[str, ...]) -> ApiError:
    """Return the 404 for a model that is not served."""
    return ApiError(
        f"The model `{name}` does not exist. Valid aliases: {', '.join(served)}.",
        status=HTTPStatus.NOT_FOUND,
        kind="NotFoundError",
        param="model",
    )


def draining() -> ApiError:
    """Return the 500 that a vLLM gives to every new request after SIGTERM."""
    return internal("cannot schedule new futures after shutdown")


def internal(message: str) -> ApiError:
    """Return a 500."""
    return ApiError(message, status=HTTPStatus.INTERNAL_SERVER_ERROR, kind="InternalServerError")


def too_many_items(limit: int, modality: str) -> ApiError:
    """Return the 400 for more images or videos than `--limit-mm-per-prompt` lets in."""
    return bad_value(f"At most {limit} {modality}(s) may be provided in one prompt.", modality)


def no_tokens_asked(value: int) -> ApiError:
    """Return the 400 for `max_tokens` below 1."""
    return bad_value(f"max_tokens must be at least 1, got {value}.", "max_tokens", value)


def more_than_context(max_tokens: int, limit: int) -> ApiError:
    """Return the 400 for `max_tokens` above the context, whatever the prompt."""
    return bad_value(
        f"max_tokens={max_tokens} cannot be greater than max_model_len={limit}. Please request fewer output tokens.",
        "max_tokens",
        max_tokens,
    )


def text_too_long(limit: int) -> ApiError:
    """Return the 400 for a prompt whose text alone is over the context (vLLM stops counting at one over)."""
    return bad_value(
        f"This model's maximum context length is {limit} tokens. However, your prompt contains at least {limit + 1} "
        "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
        "prompt.",
        "input_tokens",
        limit + 1,
    )


def images_too_long(tokens: int, limit: int) -> ApiError:
    """Return the 400 for a prompt that is over the context once its images are expanded."""
    return ApiError(f"Input length ({tokens}) exceeds model's maximum context length ({limit}).")


def no_room_for_output(prompt: int, max_tokens: int, limit: int) -> ApiError:
    """Return the 400 of versions that refuse a prompt plus `max_tokens` over the context."""
    return ApiError(
        f"'max_tokens' or 'max_completion_tokens' is too large: {max_tokens}. This model's maximum context length is "
        f"{limit} tokens and your request has {prompt} input tokens ({max_tokens} > {limit} - {prompt})."
    )
