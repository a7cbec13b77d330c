"""A real server with real kernels, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from s1vl_sandbox.app import create_app
from s1vl_sandbox.server import Server
from s1vl_sandbox.settings import Settings

from .pod import Pod

Answer = dict[str, Any]

SHARED_SESSION = "shared"
"""For tests whose cells leave a kernel that works: starting one takes a second of a core."""


class Sandbox:
    """A running server and a client for it."""

    def __init__(self, server: Server, http: httpx.AsyncClient, workspace: Path) -> None:
        self.server = server
        self.http = http
        self.workspace = workspace

    @property
    def host_pid(self) -> int:
        """Process id of the kernel host, a child of this process."""
        (pid,) = self.server.link.pids
        return pid

    async def execute(self, code: str, session_id: str | None = None, **body: Any) -> Answer:
        """Run a cell and return `data`; the request itself must succeed."""
        response = await self.http.post("/v1/jupyter/execute", json={"code": code, "session_id": session_id, **body})
        answer = response.json()
        assert response.status_code == 200, answer
        assert answer["success"] is True
        data: Answer = answer["data"]
        return {**data, "message": answer["message"], "hint": answer["hint"]}

    async def printed(self, code: str, session_id: str, **body: Any) -> str:
        """Run a cell that must end well and return what it printed."""
        data = await self.execute(code, session_id, **body)
        assert data["status"] == "ok", data
        return "".join(o.get("text", "") for o in data["outputs"]).strip()

    async def session_ids(self) -> set[str]:
        """Names of all open sessions."""
        return set((await self.http.get("/v1/jupyter/sessions")).json()["data"]["sessions"])

    async def ready(self) -> None:
        """Wait until the server says that it can run code."""
        await eventually(self._is_ready)

    async def unready(self) -> bool:
        """Whether the server says now that it cannot run code."""
        return not await self._is_ready()

    async def _is_ready(self) -> bool:
        return (await self.http.get("/readyz")).status_code == 200


async def eventually(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until a condition (plain or awaitable) holds."""
    deadline = time.monotonic() + seconds
    while True:
        held = condition()
        if asyncio.iscoroutine(held):
            held = await held
        if held:
            return
        assert time.monotonic() < deadline, f"did not come true in {seconds} s"
        await asyncio.sleep(0.02)


def names_in(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextlib.asynccontextmanager
async def run_sandbox(clock: Callable[[], float] = time.time, **settings: Any) -> AsyncIterator[Sandbox]:
    """A server with these settings, ready to run code, in a folder short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="s1vl-test-", dir="/tmp") as folder:
        workspace, state_dir = Path(folder) / "images", Path(folder) / "state"
        workspace.mkdir()
        state_dir.mkdir()
        server = Server(Settings(**{"state_dir": state_dir, "workspace": str(workspace), **settings}), clock)
        transport = httpx.ASGITransport(create_app(server))
        async with (
            server.running(),
            httpx.AsyncClient(transport=transport, base_url="http://sandbox", timeout=120, verify=False) as http,
        ):
            sandbox = Sandbox(server, http, workspace)
            await sandbox.ready()
            yield sandbox
        assert names_in(state_dir) == [], "the server left files behind"


Runner = Callable[..., AbstractAsyncContextManager[Sandbox]]


@pytest.fixture
def runner() -> Runner:
    """Starts servers with settings of the test's own."""
    return run_sandbox


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox() -> AsyncIterator[Sandbox]:
    """One server for all tests that need nothing special; each uses sessions of its own."""
    async with run_sandbox(max_sessions=20, warm_kernels=2) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def pod() -> AsyncIterator[Pod]:
    """Two programs that the test starts, in a folder short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="s1vl-test-", dir="/tmp") as folder:
        made = Pod(Path(folder))
        try:
            yield made
        finally:
            for program in made.programs.values():
                program.end(signal.SIGKILL)
            await made.http.aclose()


@pytest.fixture
def work_dir(sandbox: Sandbox, request: pytest.FixtureRequest) -> Path:
    """A folder of the test's own below the shared server's workspace."""
    folder = sandbox.workspace / request.node.name
    folder.mkdir()
    return folder


@pytest.fixture
def session_id(request: pytest.FixtureRequest) -> str:
    """A session name that no other test uses."""
    return f"{request.node.name}"[:150]


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def sessions_are_closed(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Close what a test opened on the shared server, but for the session that tests share."""
    yield
    if "sandbox" in request.fixturenames:
        shared: Sandbox = request.getfixturevalue("sandbox")
        for name in await shared.session_ids() - {SHARED_SESSION}:
            await shared.server.sessions.delete(name)
