"""Request bodies: read within bounds of size and time, and drained when nobody wants them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from tempfile import SpooledTemporaryFile
from typing import IO

from starlette.requests import ClientDisconnect, Request

from s1vl_orchestrator.errors import ApiError, ErrorCode

MAX_BODY_BYTES = 64 * 1024 * 1024
BODY_SECONDS = 60.0
_IN_MEMORY_BYTES = 256 * 1024
_DRAIN_BYTES = 4 * MAX_BODY_BYTES
_DRAIN_SECONDS = 10.0


async def read_body(request: Request, count: Callable[[int], None]) -> IO[bytes]:
    """Read a body; a chunked one is counted as it comes.

    It goes to a temporary file: many slow clients with large pictures must not cost memory.

    Args:
        request: The request.
        count: Told of every piece how many bytes it has; may refuse it.

    Raises:
        ApiError: `body_too_large` or `request_timeout`, or what `count` raises.
        ClientDisconnect: If the client hangs up.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    body = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 - closed by who reads it, or in here
    try:
        async with asyncio.timeout(BODY_SECONDS):
            too_large = not await _copy(request, body, count)
    except TimeoutError as error:
        body.close()
        raise ApiError(ErrorCode.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from error
    except BaseException:
        body.close()
        raise
    if too_large:
        body.close()
        raise _too_large()
    body.seek(0)
    return body


async def _copy(request: Request, body: IO[bytes], count: Callable[[int], None]) -> bool:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            return False
        count(len(chunk))
        body.write(chunk)
    return True


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
