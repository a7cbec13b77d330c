"""One request that runs a job: answered as JSON when it is done, or as server-sent events while it runs."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from s1vl_orchestrator.api.bodies import drain
from s1vl_orchestrator.errors import ApiError, ErrorCode

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
SEND_SECONDS = 60.0
"""A client that takes nothing for so long is gone, whatever its connection says."""

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # Proxies that know it do not hold the events back.
    (b"x-accel-buffering", b"no"),
]
_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
"""Not line ends to SSE, but to many a client's way to split lines (Python's among them)."""
_HEARTBEAT = b": keep-alive\n\n"

ErrorShape = Callable[[ApiError], tuple[str, dict[str, Any]]]
"""The event name ("" for none) and the data of an error in a stream."""


class Channel:
    """From a job to its client. Nothing is kept of a job whose client did not ask for a stream.

    Attributes:
        opened: The client wants events.
        stopped: The job is to be ended.
    """

    def __init__(self, error_shape: ErrorShape) -> None:
        self.changed = asyncio.Event()
        self.body_read = asyncio.Event()
        self.opened = False
        self.stopped = False
        self._frames: list[bytes] = []
        self._error_shape = error_shape

    def open(self) -> None:
        """Answer with events from now on."""
        self.opened = True
        self.changed.set()

    def stop(self) -> None:
        """End the job before it is done; the client is told to ask again."""
        self.stopped = True
        self.changed.set()

    def send(self, data: Mapping[str, Any] | str, name: str = "") -> None:
        """Send one event: a JSON object, or a text as it is."""
        if not self.opened:
            return
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        if not text.isascii():
            text = text.translate(_LINE_ENDS)
        event = f"event: {name}\n" if name else ""
        self._frames.append(f"{event}data: {text}\n\n".encode(errors="replace"))
        self.changed.set()

    def fail(self, error: ApiError) -> None:
        """Send an error as the last event."""
        name, data = self._error_shape(error)
        self.send(data, name)

    def take(self) -> bytes:
        """What was sent since the last call."""
        frames, self._frames = self._frames, []
        return b"".join(frames)


Work = Callable[[Channel], Awaitable[dict[str, Any]]]
"""Does everything from the key to the answer. Sets `body_read` once the body is in; what it sent need not be returned
again: the return value is the answer of a client that wants no events."""


class JobResponse(Response):
    """Runs the work while the client is there; when it hangs up, the work is cancelled and its tidying up awaited.

    Until the first event an error has its own status and body. After it, or after `HEARTBEAT_SECONDS` of a stream in
    which nothing happened yet, it comes as an event.
    """

    def __init__(self, request: Request, work: Work, error_shape: ErrorShape) -> None:
        super().__init__()
        self._request = request
        self._work = work
        self._channel = Channel(error_shape)
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        channel = self._channel
        job = asyncio.ensure_future(self._work(channel))
        gone = asyncio.create_task(self._disconnected())
        for task in (job, gone):
            task.add_done_callback(lambda _: channel.changed.set())
        try:
            await self._send_events(job, gone, send)
            if channel.stopped and not gone.done():
                await _cancel(job)
            if job.done():
                await self._end(job, scope, receive, send)
            elif not self._started:
                raise ClientDisconnect
        finally:
            gone.cancel()
            if not job.done():
                seconds = await _cancel(job)
                log.info("the client hung up; its job was ended", extra={"seconds": round(seconds, 4)})

    async def _send_events(self, job: asyncio.Future[Any], gone: asyncio.Task[None], send: Send) -> None:
        """Send events as they come, until the job is done or stopped, or the client gone."""
        channel = self._channel
        while True:
            channel.changed.clear()
            frames = channel.take()
            if (gone.done() or channel.stopped) and not job.done():
                return
            if frames:
                if not await self._send(frames, send):
                    return
                continue
            if job.done():
                return
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS if channel.opened else None):
                    await channel.changed.wait()
            except TimeoutError:
                if not await self._send(_HEARTBEAT, send):
                    return

    async def _send(self, frames: bytes, send: Send) -> bool:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                if not self._started:
                    self._started = True
                    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await send({"type": "http.response.body", "body": frames, "more_body": True})
        except (TimeoutError, OSError) as error:
            log.info("the client takes no more events (%s)", type(error).__name__)
            return False
        return True

    async def _end(self, job: asyncio.Future[dict[str, Any]], scope: Scope, receive: Receive, send: Send) -> None:
        channel = self._channel
        failure = _stopped() if job.cancelled() else job.exception()
        if not self._started:
            if isinstance(failure, ApiError):
                await drain(self._request)
            if failure is not None:
                raise failure
            await JSONResponse(job.result())(scope, receive, send)
            return
        if failure is not None:
            channel.fail(self._as_api_error(failure))
        await self._send(channel.take(), send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _as_api_error(self, failure: BaseException) -> ApiError:
        if isinstance(failure, ApiError):
            error = failure
            log.info("%s: %s", error.code.value, error.message)
        else:
            log.error("a defect", exc_info=failure)
            error = ApiError(ErrorCode.INTERNAL_ERROR, "The orchestrator failed; its log says why.")
        self._request.app.state.service.metrics.errors.labels(error.code.value).inc()
        return error

    async def _disconnected(self) -> None:
        # Not before: two readers would take the body's pieces from each other.
        await self._channel.body_read.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


def _stopped() -> ApiError:
    message = "This instance had to end before there was an answer. Ask again."
    return ApiError(ErrorCode.SHUTTING_DOWN, message, retry_after=1)


async def _cancel(job: asyncio.Future[Any]) -> float:
    """Cancel a job and wait until it has tidied up; returns how many seconds that took."""
    began = time.monotonic()
    job.cancel()
    await asyncio.wait({job})
    return time.monotonic() - began
