"""Stand-ins for the two neighbours: vLLM's stream, and AIO's Jupyter API on processes that really run the code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

SANDBOX_PATH = "/mnt/data/images"


class _Quiet(uvicorn.Server):
    """Leaves signals alone, and ends when it is told to, not when it looks next."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._told.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


_running: list[_Quiet] = []


def stop_all() -> None:
    """Tell all servers to stop, so that they do it at the same time."""
    for server in _running:
        server.stop()


@contextlib.asynccontextmanager
async def served(app: Any, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve an ASGI app, on a free port unless told otherwise; yields its URL."""
    config = uvicorn.Config(app, host=host, port=port, lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = _Quiet(config)
    task = asyncio.create_task(server.serve())
    _running.append(server)
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.01)
    bound = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://{host}:{bound}"
    finally:
        server.stop()
        await task
        _running.remove(server)


@dataclass
class Fail:
    """A scripted failure: an HTTP error, or with status 0 a stream that breaks at once, with -1 one that hangs,
    with -2 one that breaks after some text, with -3 one that breaks after the message."""

    status: int
    message: str = "scripted"


Step = str | Fail | Callable[[list[dict[str, Any]]], str]


@dataclass
class FakeEngine:
    """vLLM's chat completions. Says the scripted turns, one per request, split at </think> as deepseek_r1 does."""

    script: list[Step] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    field_name: str = "reasoning"
    obey_stop: bool = True
    piece: int = 7
    aborted: int = 0
    finish: str = "stop"
    prompt_tokens: int = 1000
    counts_while_streaming: bool = True
    known: set[str] = field(default_factory=set)
    version: str = ""
    version_asked: int = 0
    draining: bool = False
    hold: asyncio.Event | None = None
    """Awaited behind the first piece of a turn."""
    unknown_picture: str = "Cache miss for image at index 0 but data is not provided."

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> JSONResponse:
            return JSONResponse(None)

        @app.get("/version")
        async def version() -> JSONResponse:
            self.version_asked += 1
            return JSONResponse({"version": self.version} if self.version else {}, 200 if self.version else 404)

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Any:
            body = await request.json()
            self.requests.append(body)
            if self.draining:
                error = {"message": "cannot schedule new futures after shutdown", "type": "InternalServerError"}
                return JSONResponse({"error": {**error, "param": None, "code": 500}}, 500)
            for part in _pictures(body["messages"]):
                if part["image_url"] is None and part["uuid"] not in self.known:
                    error = {"message": self.unknown_picture, "type": "BadRequestError", "param": None, "code": 400}
                    return JSONResponse({"error": error}, 400)
                self.known.add(part.get("uuid", ""))
            step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if isinstance(step, Fail) and step.status > 0:
                error = {"message": step.message, "type": "X", "param": None, "code": step.status}
                return JSONResponse({"error": error}, step.status)
            if not body.get("stream"):
                return await self._whole(step, body, request)
            return StreamingResponse(self._stream(step, body), media_type="text/event-stream")

        return app

    async def _whole(self, step: Step, body: dict[str, Any], request: Request) -> JSONResponse:
        if isinstance(step, Fail):
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.aborted += 1
            return JSONResponse(None, 499)
        text = step if isinstance(step, str) else step(body["messages"])
        reasoning, _, content = text.partition("</think>")
        message = {"role": "assistant", "content": content, self.field_name: reasoning}
        usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": 9, "total_tokens": self.prompt_tokens + 9}
        choice = {"index": 0, "message": message, "finish_reason": self.finish, "stop_reason": None}
        head = {"id": "chatcmpl-x", "object": "chat.completion", "created": 1, "model": body["model"]}
        return JSONResponse({**head, "choices": [choice], "usage": usage})

    async def _stream(self, step: Step, body: dict[str, Any]) -> AsyncIterator[bytes]:
        counted = (body.get("stream_options") or {}).get("continuous_usage_stats") and self.counts_while_streaming
        spoken = 0
        head = {"id": "chatcmpl-x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

        def event(**more: Any) -> bytes:
            if counted:
                more = {"usage": {"prompt_tokens": self.prompt_tokens, "completion_tokens": spoken}, **more}
            data = json.dumps({**head, "choices": [], **more}, ensure_ascii=False)
            return f"data: {data}\n\n".encode(errors="surrogatepass")

        def delta(**delta: str) -> bytes:
            return event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])

        done = False
        try:
            yield delta(role="assistant", content="")
            if isinstance(step, Fail):
                if step.status == -3:
                    reasoning, _, content = step.message.partition("</think>")
                    yield delta(**{self.field_name: reasoning})
                    yield delta(content=content)
                elif step.status:
                    yield delta(reasoning="I am thinking")
                if step.status == -1:
                    await asyncio.sleep(3600)
                return
            text = step if isinstance(step, str) else step(body["messages"])
            if self.obey_stop:
                ends = [at + len(stop) for stop in body.get("stop", []) if (at := text.find(stop)) >= 0]
                text = text[: min(ends, default=len(text))]
            reasoning, closed, content = text.partition("</think>")
            if not closed:
                reasoning, content = text, ""
            for name, channel in ((self.field_name, reasoning), ("content", content)):
                for at in range(0, len(channel), self.piece):
                    spoken += 1
                    yield delta(**{name: channel[at : at + self.piece]})
                    await (self.hold.wait() if self.hold else asyncio.sleep(0))
            yield event(choices=[{"index": 0, "delta": {}, "finish_reason": self.finish, "stop_reason": None}])
            done = True
            yield event(usage={"prompt_tokens": self.prompt_tokens, "completion_tokens": spoken, "total_tokens": 0})
            yield b"data: [DONE]\n\n"
        finally:
            self.aborted += not done


def _pictures(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return [part for content in contents for part in content if part["type"] == "image_url"]


_WORKER = r"""
import io, json, os, sys, contextlib, traceback, base64
names = {"__name__": "__main__"}
count = 0
def display(png): outputs.append({"output_type": "display_data", "data": {"image/png": base64.b64encode(png).decode()}})
names["display_png"] = display
for line in sys.stdin:
    request = json.loads(line)
    outputs, out = [], io.StringIO()
    status = "ok"; count += 1
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(request["code"], "<cell>", "exec"), names)
    except BaseException as error:
        status = "error"
        failure = {"output_type": "error", "ename": type(error).__name__, "evalue": str(error),
                   "traceback": traceback.format_exc().splitlines()}
    if out.getvalue(): outputs.insert(0, {"output_type": "stream", "name": "stdout", "text": out.getvalue()})
    if status == "error": outputs.append(failure)
    print(json.dumps({"status": status, "outputs": outputs, "execution_count": count}), flush=True)
"""


class FakeSandbox:
    """AIO's Jupyter API; each session is a Python process of its own that sees `mount` at `SANDBOX_PATH`.

    With a `boot_id` it is our runtime, which takes grants. With "" it is the stock image, at its strictest: a field
    that it does not know is an error.
    """

    def __init__(self, mount: Path, key: str = "") -> None:
        self.mount = mount
        self.key = key
        self.boot_id = secrets.token_hex(4)
        self.sessions: dict[str, asyncio.subprocess.Process] = {}
        self.opened = 0
        self.max_sessions = 8
        self.codes: list[str] = []
        self.grants: dict[str, dict[str, Any]] = {}
        self.fail_deletes = 0
        self.broken = False
        self.draining = False

    def forget(self) -> None:
        """Lose all sessions without a word, as a pod that is replaced."""
        for process in self.sessions.values():
            process.kill()
        self.sessions.clear()
        self.grants.clear()

    async def kill(self, session_id: str) -> bool:
        process = self.sessions.pop(session_id, None)
        if process is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return True

    async def close(self) -> None:
        for session_id in list(self.sessions):
            await self.kill(session_id)

    def app(self) -> FastAPI:
        app = FastAPI()

        def answer(data: Any, status: int = 200, message: str = "ok") -> JSONResponse:
            envelope = {"success": status == 200, "message": message, "data": data, "hint": None}
            return JSONResponse(envelope, status)

        @app.middleware("http")
        async def guard(request: Request, call_next: Any) -> Any:
            if self.broken:
                return JSONResponse({"success": True, "data": {"status": "???"}})
            if self.key and request.headers.get("x-aio-api-key") != self.key:
                return answer(None, 401, "the API key is wrong")
            return await call_next(request)

        @app.get("/v1/sandbox")
        async def info() -> JSONResponse:
            return answer({"boot_id": self.boot_id} if self.boot_id else {"version": "1.11.0"})

        @app.post("/v1/jupyter/sessions/create")
        async def create(request: Request) -> JSONResponse:
            body = await request.json()
            if self.draining:
                return answer(None, 503, "draining: no new sessions")
            if len(self.sessions) >= self.max_sessions:
                return answer(None, 400, "session limit reached")
            if problem := self._open(body):
                return answer(None, 422, problem)
            await self._start(body["session_id"])
            return answer({"session_id": body["session_id"]})

        @app.get("/v1/jupyter/sessions")
        async def sessions() -> JSONResponse:
            return answer({"sessions": {name: {} for name in self.sessions}})

        @app.delete("/v1/jupyter/sessions/{session_id}")
        async def delete(session_id: str) -> JSONResponse:
            if self.fail_deletes:
                self.fail_deletes -= 1
                return answer(None, 503, "scripted")
            return answer(None) if await self.kill(session_id) else answer(None, 404, "there is no such session")

        @app.post("/v1/jupyter/execute")
        async def execute(request: Request) -> JSONResponse:
            body = await request.json()
            self.codes.append(body["code"])
            if body["session_id"] not in self.sessions:
                if self.draining:
                    return answer(None, 503, "draining: no new sessions")
                if problem := self._open(body):
                    return answer(None, 422, problem)
                await self._start(body["session_id"])
            return answer(await self._run(self.sessions[body["session_id"]], body["code"], body["timeout"]))

        return app

    def _open(self, body: dict[str, Any]) -> str:
        """Note what a session may reach; returns why it cannot be opened."""
        unknown = body.keys() - {"session_id", "kernel_name", "cwd", "code", "timeout"}
        if not self.boot_id and unknown:
            return f"Extra inputs are not permitted: {sorted(unknown)}"
        if cwd := body.get("cwd"):
            folder = Path(cwd.replace(SANDBOX_PATH, str(self.mount)))
            if self.boot_id and folder.parent.is_dir():
                folder.mkdir(exist_ok=True)
            if not folder.is_dir():
                return f"cwd {cwd!r} is not an absolute path of a directory"
        self.grants[body["session_id"]] = {key: body[key] for key in ("cwd", "readable") if key in body}
        return ""

    async def _start(self, session_id: str) -> None:
        self.sessions[session_id] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-u",
            "-c",
            _WORKER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**26,
        )
        self.opened += 1

    async def _run(self, process: asyncio.subprocess.Process, code: str, seconds: float) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        inside = code.replace(SANDBOX_PATH, str(self.mount))
        process.stdin.write(json.dumps({"code": inside}).encode() + b"\n")
        try:
            async with asyncio.timeout(seconds):
                line = await process.stdout.readline()
        except TimeoutError:
            return {"status": "timeout", "outputs": [], "execution_count": None}
        if not line:
            return {"status": "error", "outputs": [], "execution_count": None, "state_lost": True}
        result: dict[str, Any] = json.loads(line.decode().replace(str(self.mount), SANDBOX_PATH))
        return result
