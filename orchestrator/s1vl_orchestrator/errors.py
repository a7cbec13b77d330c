"""Every error that a client can get, in one table: code, HTTP status, and what it means."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Codes of the JSON errors. A code, once published, never changes its meaning or its status."""

    INVALID_REQUEST = "invalid_request"
    NOT_SUPPORTED = "not_supported"
    NO_IMAGE = "no_image"
    INVALID_IMAGE = "invalid_image"
    TOO_MANY_IMAGES = "too_many_images"
    PROMPT_TOO_LONG = "prompt_too_long"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    MODEL_NOT_FOUND = "model_not_found"
    IMAGE_NOT_FOUND = "image_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    INTERNAL_ERROR = "internal_error"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    NOT_CONFIGURED = "not_configured"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    SANDBOX_STARTING = "sandbox_starting"
    PATHS_INCONSISTENT = "paths_inconsistent"
    SHUTTING_DOWN = "shutting_down"
    DEADLINE_EXCEEDED = "deadline_exceeded"

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return CATALOGUE[self][0]

    @property
    def meaning(self) -> str:
        """One sentence for docs/http-api.md."""
        return CATALOGUE[self][1]


CATALOGUE: dict[ErrorCode, tuple[int, str]] = {
    ErrorCode.INVALID_REQUEST: (
        400,
        "The body is not JSON or not of the documented form; `details.errors` names the fields.",
    ),
    ErrorCode.NOT_SUPPORTED: (400, "The request asks for something that is not done here; the message says why."),
    ErrorCode.NO_IMAGE: (400, "There is neither an embedded picture nor a path."),
    ErrorCode.INVALID_IMAGE: (
        400,
        "A picture cannot be used: broken base64, not an image, too many pixels or bytes, an aspect ratio over 200.",
    ),
    ErrorCode.TOO_MANY_IMAGES: (400, "More pictures than the engine takes in one prompt; `details` has both numbers."),
    ErrorCode.PROMPT_TOO_LONG: (400, "Text and pictures do not fit the model's context; `details` has the tokens."),
    ErrorCode.UNAUTHORIZED: (401, "The API key is missing or belongs to no tenant."),
    ErrorCode.NOT_FOUND: (404, "There is no such endpoint."),
    ErrorCode.MODEL_NOT_FOUND: (404, "There is no such model; `GET /v1/models` lists what there is."),
    ErrorCode.IMAGE_NOT_FOUND: (
        404,
        "The tenant has no picture of that path or id; the answer is the same whether there is none or it is not "
        "yours.",
    ),
    ErrorCode.METHOD_NOT_ALLOWED: (405, "The endpoint exists but not for this HTTP method."),
    ErrorCode.REQUEST_TIMEOUT: (408, "The body did not arrive in time."),
    ErrorCode.BODY_TOO_LARGE: (413, "The body is larger than `details.limit_bytes`."),
    ErrorCode.RATE_LIMITED: (429, "The tenant has used up its requests per minute. See `Retry-After`."),
    ErrorCode.QUEUE_FULL: (429, "The tenant's running and queued requests are at their limits. See `Retry-After`."),
    ErrorCode.INTERNAL_ERROR: (500, "A defect of the orchestrator; its log has the request's id."),
    ErrorCode.STORAGE_UNAVAILABLE: (
        503,
        "The image volume refused a write (full, read-only, gone). See `Retry-After`.",
    ),
    ErrorCode.NOT_CONFIGURED: (503, "The orchestrator has not read a valid configuration yet. See `Retry-After`."),
    ErrorCode.ENGINE_UNAVAILABLE: (503, "The engine does not answer and nothing was produced. See `Retry-After`."),
    ErrorCode.SANDBOX_STARTING: (503, "The tenant's sandbox is not reachable (yet). See `Retry-After`."),
    ErrorCode.PATHS_INCONSISTENT: (
        503,
        "The tenant's sandbox does not see the same files as the orchestrator, so no job may run. See `Retry-After`.",
    ),
    ErrorCode.SHUTTING_DOWN: (
        503,
        "This instance is draining, or had to end before there was an answer; ask again and another one answers. "
        "See `Retry-After`.",
    ),
    ErrorCode.DEADLINE_EXCEEDED: (504, "The deadline passed before the model said anything at all."),
}


_INVALID = "invalid_request_error"
_OPENAI_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An error for the client.

    Attributes:
        code: What went wrong.
        message: A sentence for people, with numbers where there are any.
        details: Facts for programs.
        retry_after: Seconds for the `Retry-After` header, None for no header.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON body: `{"error": {"code", "message", "details"}}`."""
        return {"error": {"code": self.code.value, "message": self.message, "details": self.details}}

    def openai_body(self) -> dict[str, Any]:
        """The JSON body of the `/v1` endpoints: OpenAI's fields, with the same codes and the details."""
        kind = _OPENAI_TYPES.get(self.code.status, "server_error" if self.code.status >= 500 else _INVALID)
        error = {"message": self.message, "type": kind, "param": self.details.get("param"), "code": self.code.value}
        return {"error": {**error, "details": self.details}}

    def headers(self) -> dict[str, str]:
        """Extra response headers; `Retry-After` in whole seconds, at least 1."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after + 0.49)))
        if self.code is ErrorCode.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return headers
