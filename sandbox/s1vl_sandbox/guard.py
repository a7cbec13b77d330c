"""What a request must pass before anything of it is read: its key and its size."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s1vl_sandbox.envelope import failure

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_UPLOAD_BYTES = 100 * 1024 * 1024
"""Largest form to upload a file with."""
# The first has room for what base64 adds to 10 MiB.
_ROUTE_BYTES = {"/v1/file/write": 16 * 1024 * 1024, "/v1/file/upload": MAX_UPLOAD_BYTES}


def presented_keys(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> list[bytes]:
    """All API keys a request carries: ``X-AIO-API-Key``, ``Authorization: Bearer``, ``?api_key=``."""
    keys = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"x-aio-api-key":
            keys.append(value.strip())
        elif lower == b"authorization" and value[:7].lower() == b"bearer ":
            keys.append(value[7:].strip())
    keys.extend(key.encode() for key in parse_qs(query.decode("latin-1")).get("api_key", []))
    return keys


def key_matches(keys: list[bytes], expected_sha256: str) -> bool:
    """Whether one of ``keys`` has that SHA-256. Takes the same time wherever two hashes first differ."""
    matches = [hmac.compare_digest(hashlib.sha256(key).hexdigest(), expected_sha256) for key in keys]
    return any(matches)


class Guard:
    """ASGI middleware: 401 without the right key on ``/v1/*``, 413 for bodies over the limit, chunked ones included.

    The limit is 4 MiB, but 16 MiB to write a file and 100 MiB to upload one.
    """

    def __init__(self, app: ASGIApp, api_key_sha256: str) -> None:
        self._app = app
        self._api_key_sha256 = api_key_sha256

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].startswith("/v1") and self._api_key_sha256:
            keys = presented_keys(scope["headers"], scope.get("query_string", b""))
            if not key_matches(keys, self._api_key_sha256):
                message = "the API key is wrong" if keys else "an API key is required"
                hint = "send it as X-AIO-API-Key, as Authorization: Bearer or as ?api_key="
                response = JSONResponse(failure(message, hint), 401, {"WWW-Authenticate": "Bearer"})
                await response(scope, receive, send)
                return
        await self._bounded(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = _ROUTE_BYTES.get(scope["path"], MAX_BODY_BYTES)
        too_large = f"the body is over {limit} bytes; put data into a file on the shared volume instead"
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await JSONResponse(failure(too_large), 413)(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # Raised inside of the application, whose error handlers make the answer of it.
                raise HTTPException(413, too_large)
            return message

        await self._app(scope, counting_receive, send)
