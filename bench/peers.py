"""Stand-ins for the engine and the sandbox that answer at once, note when, and fail when they are told to.

They live in the bench's own process, on another CPU than what is measured, so that their clock is the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from bench.scripted import count_pictures, crop, read_prompt, said, stream_of, stream_of_code, whole

MOST_BODY_BYTES = 1024**3

ENGINE_FAULTS = ("status_500", "status_503", "closed", "broken_stream", "garbage", "hang")
SESSION_FAULTS = ("status_500", "status_503", "closed", "garbage", "forgotten", "late_cut")
CELL_FAULTS = (*SESSION_FAULTS, "nonsense")


@dataclass(frozen=True)
class Span:
    """One request that a stand-in answered: `time.perf_counter()` from having all of it to having sent the answer."""

    party: str
    began: float
    ended: float


class Faults:
    """Fails a part of all requests. The draw has a fixed seed."""

    def __init__(self, rate: float = 0.0, seed: int = 6) -> None:
        self.rate = rate
        self.count: Counter[str] = Counter()
        self._draw = random.Random(seed)  # noqa: S311 - nothing secret

    def pick(self, kinds: tuple[str, ...]) -> str:
        """The fault of the next request, "" for none."""
        if self._draw.random() >= self.rate:
            return ""
        kind = self._draw.choice(kinds)
        self.count[kind] += 1
        return kind


@dataclass
class EnginePeer:
    """vLLM's chat completions, streamed and not.

    Attributes:
        spans: What was answered.
        bytes_in: Bytes of all request bodies.
        requests: How many there were.
        open: How many are being answered.
        aborted: `time.perf_counter()` at which each client hung up.
        hold_turn: Requests of this turn wait for their first event until `gate` is set; 0 for none.
    """

    faults: Faults = field(default_factory=Faults)
    spans: list[Span] = field(default_factory=list)
    bytes_in: int = 0
    requests: int = 0
    open: int = 0
    aborted: list[float] = field(default_factory=list)
    hold_turn: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    _known: set[bytes] = field(default_factory=set)

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(client_max_size=MOST_BODY_BYTES)
        app.router.add_get("/health", _ok)
        app.router.add_get("/version", _version)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        began = time.perf_counter()
        self.requests += 1
        self.bytes_in += len(body)
        self.open += 1
        try:
            answer = await self._answer(request, body)
        except (asyncio.CancelledError, ConnectionResetError) as error:
            self.aborted.append(time.perf_counter())
            if isinstance(error, asyncio.CancelledError):
                raise
            return web.Response()  # To nobody: it hung up before the answer began.
        finally:
            self.open -= 1
        self.spans.append(Span("engine", began, time.perf_counter()))
        return answer

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if problem := self._missing_picture(body):
            return web.json_response(
                {"error": {"message": problem, "type": "BadRequestError", "code": 400}}, status=400
            )
        fault = self.faults.pick(ENGINE_FAULTS)
        if fault.startswith("status"):
            status = int(fault.removeprefix("status_"))
            return web.json_response({"error": {"message": "injected", "type": "X", "code": status}}, status=status)
        if fault == "closed":
            _cut(request)
            return web.Response()
        asked = read_prompt(body)
        pictures = count_pictures(body)
        if b'"stream":true' not in body:
            return web.Response(body=whole(*said(asked, pictures)), content_type="application/json")
        last = asked.turn >= asked.turns
        events = stream_of(*said(asked, pictures)) if last else stream_of_code(asked.turn, crops=asked.crops)
        return await self._stream(request, events, fault, hold=asked.turn == self.hold_turn)

    async def _stream(self, request: web.Request, events: bytes, fault: str, *, hold: bool) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await answer.prepare(request)
        if hold:
            await self.gate.wait()
        if fault:
            first = events.index(b"\n\n") + 2
            await answer.write(events[:first])
            if fault == "hang":
                await asyncio.Event().wait()
            elif fault == "garbage":
                await answer.write(b'data: {"choices": [{]}\n\n')
            elif fault:
                await answer.write(events[first : len(events) // 2])
                _cut(request)
                return answer
        await answer.write(events)
        await answer.write_eof()
        return answer

    def _missing_picture(self, body: bytes) -> str:
        """What vLLM says of a picture that it neither gets nor has; a file of the volume must be there."""
        for uuid in _BY_UUID.findall(body):
            if uuid not in self._known:
                return "Cache miss for image at index 0 but data is not provided."
        for file in _BY_FILE.findall(body):
            if not Path(file.decode()).is_file():
                return f"[Errno 2] No such file or directory: {file.decode()!r}"
        self._known.update(_UUID.findall(body))
        return ""


_BY_UUID = re.compile(rb'"image_url":null,"uuid":"(\w+)"')
_BY_FILE = re.compile(rb'"url":"file://([^"]+)"')
_UUID = re.compile(rb'"uuid":"(\w+)"')
_IMAGE = re.compile(r"image_paths = \['([^']+)'")
_OUTPUT = re.compile(r"output_dir = (?:temp_output_dir = )?'([^']+)'")
_CROP = re.compile(r"crop_(\d+)\.png")


@dataclass
class _Kernel:
    cwd: str
    count: int = 0
    image: str = ""
    output: str = ""


@dataclass
class SandboxPeer:
    """AIO's Jupyter API. Its kernels do what the scripted code would do, without running it.

    Attributes:
        spans: What was answered, but for canaries.
        sessions: What is open.
        opened: Sessions ever opened.
        deleted: `time.perf_counter()` of each deletion.
    """

    faults: Faults = field(default_factory=Faults)
    spans: list[Span] = field(default_factory=list)
    sessions: dict[str, _Kernel] = field(default_factory=dict)
    opened: int = 0
    deleted: list[float] = field(default_factory=list)

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(client_max_size=MOST_BODY_BYTES)
        app.router.add_get("/v1/sandbox", self._sandbox)
        app.router.add_get("/v1/jupyter/sessions", self._list)
        app.router.add_post("/v1/jupyter/sessions/create", self._timed)
        app.router.add_post("/v1/jupyter/execute", self._timed)
        app.router.add_delete("/v1/jupyter/sessions/{session}", self._timed)
        return app

    async def _sandbox(self, _request: web.Request) -> web.Response:
        return _enveloped({"boot_id": "bench"})

    async def _list(self, _request: web.Request) -> web.Response:
        return _enveloped({"sessions": {name: {} for name in self.sessions}})

    async def _timed(self, request: web.Request) -> web.Response:
        body = await request.read()
        began = time.perf_counter()
        data = json.loads(body) if body else {"session_id": request.match_info["session"]}
        kernel = self.sessions.get(data["session_id"])
        canary = "/.s1vl/canary/" in (kernel.cwd if kernel else data.get("cwd", ""))
        fault = "" if canary else self.faults.pick(CELL_FAULTS if request.path.endswith("/execute") else SESSION_FAULTS)
        if fault == "forgotten":
            self.sessions.pop(data["session_id"], None)
        elif fault == "closed":
            _cut(request)
            return web.Response()
        elif fault == "garbage":
            return web.Response(body=b"<html>", content_type="text/html")
        elif fault == "nonsense":
            return _enveloped({"status": "???", "outputs": 5})
        elif fault.startswith("status"):
            return _enveloped(None, int(fault.removeprefix("status_")), "injected")
        answer = self._handle(request.path, data)
        if fault == "late_cut":
            _cut(request)
        if not canary:
            self.spans.append(Span("sandbox", began, time.perf_counter()))
        return answer

    def _handle(self, path: str, data: dict[str, Any]) -> web.Response:
        session = data["session_id"]
        if path.endswith("/create"):
            self._open(data)
            return _enveloped({"session_id": session})
        if path.endswith("/execute"):
            kernel = self.sessions.get(session) or self._open(data)
            kernel.count += 1
            text = _run(kernel, data["code"])
            outputs = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
            return _enveloped({"status": "ok", "outputs": outputs, "execution_count": kernel.count})
        if self.sessions.pop(session, None) is None:
            return _enveloped(None, 404, "there is no such session")
        self.deleted.append(time.perf_counter())
        return _enveloped(None)

    def _open(self, data: dict[str, Any]) -> _Kernel:
        self.opened += 1
        return self.sessions.setdefault(data["session_id"], _Kernel(data.get("cwd", "")))


def _run(kernel: _Kernel, code: str) -> str:
    if "/.s1vl/canary/" in kernel.cwd:
        exec(code, {})  # noqa: S102 - the orchestrator's own few lines, not a model's
        return ""
    if found := _IMAGE.search(code):
        kernel.image = found[1]
        output = _OUTPUT.search(code)
        kernel.output = output[1] if output else ""
        return ""
    if not kernel.image:
        return "NameError: name 'image_path' is not defined\n"
    printed = "look"
    if found := _CROP.search(code):
        file = Path(kernel.output, found[0])
        file.write_bytes(crop(int(found[1])))
        printed = str(file)
    return f"{printed}\nvalue={Path(kernel.image).stat().st_size}\n"


def _enveloped(data: Any, status: int = 200, message: str = "ok") -> web.Response:
    body = json.dumps({"success": status == 200, "message": message, "data": data, "hint": None})
    return web.Response(text=body, status=status, content_type="application/json")


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _ok(_request: web.Request) -> web.Response:
    return web.Response()


async def _version(_request: web.Request) -> web.Response:
    return web.json_response({"version": "0.32.0"})


@contextlib.asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on a free port; yields its URL."""
    # Cancelled: a handler whose client hung up must see it.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
