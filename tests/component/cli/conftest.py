"""`s1vl eval` as a process of its own, against the real orchestrator or a server that says what a test wants."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from tests.component.orchestrator.conftest import times, world
from tests.component.orchestrator.fakes import served
from tests.component.orchestrator.test_simulator import simulator

__all__ = ["simulator", "times", "world"]

MODEL = "ScienceOne-AI/S1-VL-32B"


@dataclass
class Outcome:
    """What came of a command."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.out)
        return result


def _hear_interrupts() -> None:
    """What runs in the background of a shell without job control inherits that SIGINT is ignored, and so would this."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def start(*arguments: Any, folder: Path, key: str = "") -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if name != "S1VL_API_KEY"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "s1vl_cli", "eval", *map(str, arguments),
        cwd=folder, env=environment | ({"S1VL_API_KEY": key} if key else {}),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        preexec_fn=_hear_interrupts,
    )  # fmt: skip


async def finish(process: asyncio.subprocess.Process) -> Outcome:
    try:
        out, err = await asyncio.wait_for(process.communicate(), 120)
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"the command did not end:\n{out.decode()}\n{err.decode()}") from None
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


async def evaluate(*arguments: Any, folder: Path, key: str = "") -> Outcome:
    return await finish(await start(*arguments, folder=folder, key=key))


def records(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results after its header."""
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def completion(content: str | None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}, **more}


Step = Response | dict[str, Any] | Callable[[dict[str, Any]], Awaitable[Response | dict[str, Any]]]


@dataclass
class Scripted:
    """An OpenAI-compatible server. Answers with the next of `script`, whose last is said for ever."""

    script: list[Step] = field(default_factory=lambda: [completion("A")])
    models: Response | dict[str, Any] = field(default_factory=lambda: {"data": [{"id": MODEL}, {"id": "other"}]})
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    held: asyncio.Event | None = None
    url: str = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        async def models() -> Any:
            return self.models

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Any:
            self.seen.append(await request.json())
            self.keys.append(request.headers.get("authorization", ""))
            if self.held:
                await self.held.wait()
            step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            answer = await step(self.seen[-1]) if callable(step) and not isinstance(step, Response) else step
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return app


def refusal(status: int, code: str = "x", message: str = "scripted", **headers: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    server = Scripted()
    async with served(server.app()) as url:
        server.url = url
        yield server
        if server.held:
            server.held.set()
