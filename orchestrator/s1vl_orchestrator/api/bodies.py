"""Request bodies: read within bounds of size and time, and drained when nobody wants them."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import ClientDisconnect, Request

from s1vl_orchestrator.errors import ApiError, ErrorCode

MAX_BODY_BYTES = 64 * 1024 * 1024
BODY_SECONDS = 60.0
_DRAIN_BYTES = 4 * MAX_BODY_BYTES
_DRAIN_SECONDS = 10.0


async def read_body(request: Request) -> bytes:
    """Read a body; a chunked one is counted as it comes.

    Raises:
        ApiError: `body_too_large` or `request_timeout`.
        ClientDisconnect: If the client hangs up.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                chunks.append(chunk)
    except TimeoutError as error:
        raise ApiError(ErrorCode.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from error
    return b"".join(chunks)


async def drain(request: Request) -> None:
    """Read the rest of a body that is refused and forget it.

    Closing the connection under a client that is still sending resets it, and the client never sees why.
    """
    size = 0
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: it was read already.
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > _DRAIN_BYTES:
                    return


def _too_large() -> ApiError:
    return ApiError(
        ErrorCode.BODY_TOO_LARGE, f"The body is over {MAX_BODY_BYTES} bytes.", {"limit_bytes": MAX_BODY_BYTES}
    )
