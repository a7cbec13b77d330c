"""AIO Sandbox's own client, `agent-sandbox` of PyPI, speaking to a sandbox that runs as a program of its own.

By default that is ours. With `AIO_URL` set (and `AIO_API_KEY`, if it wants one) the same tests run against that one:

    docker run -d -p 8080:8080 -e SANDBOX_API_KEY=secret AIO_SANDBOX_IMAGE
    AIO_URL=http://127.0.0.1:8080 AIO_API_KEY=secret python -m pytest tests/component/sandbox/conformance

What only ours does is marked `only_ours`, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from agent_sandbox import AsyncSandbox, Sandbox
from agent_sandbox.core.api_error import ApiError

from hack.sandbox_program import SandboxProgram

from ..conftest import eventually

AIO_URL = os.environ.get("AIO_URL", "")
AIO_API_KEY = os.environ.get("AIO_API_KEY", "")
KEY = "correct horse battery staple"


def only_ours(reason: str) -> pytest.MarkDecorator:
    """Skip against AIO's image: it is known to differ, or nobody knows what it does."""
    return pytest.mark.skipif(bool(AIO_URL), reason=f"AIO_URL is set; {reason}")


@dataclass(frozen=True)
class Service:
    """A sandbox to test: where it is, and its key."""

    url: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """What a client must send."""
        return {"X-AIO-API-Key": self.key} if self.key else {}


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Service]:
    """A sandbox of ours with these settings, ready to run code."""
    chosen = {"max_sessions": 20, "warm_kernels": 2, "api_key_sha256": hashlib.sha256(KEY.encode()).hexdigest()}
    with tempfile.TemporaryDirectory(prefix="s1vl-test-", dir="/tmp") as folder:
        program = SandboxProgram(Path(folder), **(chosen | settings))
        try:
            await eventually(lambda: asyncio.to_thread(program.ready), 120)
            yield Service(program.url, KEY)
        finally:
            await asyncio.to_thread(program.end)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def service() -> AsyncIterator[Service]:
    """The sandbox that all tests share."""
    if AIO_URL:
        yield Service(AIO_URL.rstrip("/"), AIO_API_KEY)
        return
    with tempfile.TemporaryDirectory(prefix="s1vl-work-", dir="/tmp") as workspace:
        async with serving(workspace=workspace) as ours:
            yield ours


class Client:
    """The synchronous or the asynchronous client of PyPI, called in the same way."""

    def __init__(self, real: Sandbox | AsyncSandbox) -> None:
        self.real = real

    async def __call__(self, method: str, *args: Any, **body: Any) -> Any:
        """Call e.g. ``jupyter.execute_code`` and return what the client makes of the answer."""
        group, name = method.split(".")
        call = getattr(getattr(self.real, group), name)
        if inspect.iscoroutinefunction(call):
            return await call(*args, **body)
        return await asyncio.to_thread(call, *args, **body)

    async def data(self, method: str, *args: Any, **body: Any) -> Any:
        """Call a method that must succeed and return `data`."""
        answer = await self(method, *args, **body)
        assert answer.success is True, answer
        return answer.data

    async def run(self, code: str, session_id: str, **body: Any) -> Any:
        """Run a cell and return `data`."""
        return await self.data("jupyter.execute_code", code=code, session_id=session_id, **body)

    async def printed(self, code: str, session_id: str, **body: Any) -> str:
        """Run a cell that must end well and return what it printed."""
        data = await self.run(code, session_id, **body)
        assert data.status == "ok", data
        return "".join(output.text or "" for output in data.outputs).strip()

    async def download(self, path: str) -> bytes:
        """The bytes of a file."""
        if isinstance(self.real, AsyncSandbox):
            return b"".join([chunk async for chunk in self.real.file.download_file(path=path)])
        return await asyncio.to_thread(lambda: b"".join(self.real.file.download_file(path=path)))

    async def refused(self, status: int, method: str, *args: Any, **body: Any) -> Any:
        """Call a method that must fail with this HTTP status and return the body."""
        with pytest.raises(ApiError) as error:
            await self(method, *args, **body)
        assert error.value.status_code == status, error.value
        return error.value.body


def connect(service: Service, asynchronous: bool) -> Client:
    """A client for a sandbox."""
    kind: Any = AsyncSandbox if asynchronous else Sandbox
    return Client(kind(base_url=service.url, headers=service.headers, timeout=120))


@pytest.fixture(params=["sync", "async"])
def client(service: Service, request: pytest.FixtureRequest) -> Client:
    """Both clients in turn."""
    return connect(service, request.param == "async")


@pytest_asyncio.fixture(loop_scope="session")
async def session_id(service: Service) -> AsyncIterator[str]:
    """A session name of the test's own; the session is deleted at the end."""
    name = f"conformance-{uuid.uuid4()}"
    yield name
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=60, verify=False) as http:
        await http.delete(f"/v1/jupyter/sessions/{name}")


@pytest_asyncio.fixture(loop_scope="session")
async def folder(service: Service, session_id: str) -> AsyncIterator[str]:
    """A folder of the test's own, which does not exist yet, below the sandbox's home."""
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=60, verify=False) as http:
        home = (await http.get("/v1/sandbox")).json()["home_dir"]
    yield f"{home}/{session_id}"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clients talk to this machine."""
    monkeypatch.setenv("NO_PROXY", "*")
    yield
