"""What several groups of routes share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Request
from pydantic import BeforeValidator, Field

from s1vl_sandbox.server import Server

DEFAULT_TIMEOUT_SECONDS = 30
MAX_TIMEOUT_SECONDS = 300

Timeout = Annotated[
    int,
    Field(ge=1, le=MAX_TIMEOUT_SECONDS, description="Seconds after which the code is interrupted."),
    # AIO's schema allows null for the default.
    BeforeValidator(lambda value: DEFAULT_TIMEOUT_SECONDS if value is None else value),
]
SessionId = Annotated[str, Field(min_length=1, max_length=200)]


def server_of(request: Request) -> Server:
    """The server behind the application that got the request."""
    server: Server = request.app.state.server
    return server
