"""Server and kernel host as two programs that share a state folder, as in a pod."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from hack.ports import free_port
from hack.sandbox_program import SandboxProgram
from s1vl_sandbox.processes import descendants

from .conftest import eventually, gone

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Pod:
    """The two programs; each can be killed and started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "images"
        self.workspace.mkdir()
        self.workspace.chmod(0o2770)
        self.state_dir = folder / "run"
        self.state_dir.mkdir()
        self.port = free_port()
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self.programs: dict[str, SandboxProgram] = {}

    def start(self, command: str) -> None:
        """Start "serve" or "kernels"."""
        self.programs[command] = SandboxProgram(
            self.folder,
            command,
            port=self.port,
            state_dir=self.state_dir,
            workspace=self.workspace,
            kernels="separate",
        )

    def kill(self, command: str, number: int = signal.SIGKILL) -> int:
        """End a program and return its exit code."""
        return self.programs[command].end(number)

    async def readiness(self) -> tuple[int, str]:
        """Status and reason of /readyz; 0 while nobody listens."""
        try:
            answer = await self.http.get("/readyz")
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.json()["reason"]

    async def ready(self) -> bool:
        return (await self.readiness())[0] == 200

    async def execute(self, code: str, session_id: str, **body: Any) -> dict[str, Any]:
        body = {"code": code, "session_id": session_id, **body}
        data: dict[str, Any] = (await self.http.post("/v1/jupyter/execute", json=body)).json()["data"]
        return data


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for the paths of sockets."""
    with tempfile.TemporaryDirectory(prefix="s1vl-test-", dir="/tmp") as made:
        yield Path(made)


@pytest_asyncio.fixture(loop_scope="session")
async def pod(folder: Path) -> AsyncIterator[Pod]:
    made = Pod(folder)
    try:
        yield made
    finally:
        for program in made.programs.values():
            program.end(signal.SIGKILL)
        await made.http.aclose()


async def unready_because(pod: Pod, reason: str) -> None:
    async def holds() -> bool:
        status, why = await pod.readiness()
        return status == 503 and reason in why

    await eventually(holds)


async def test_a_server_waits_for_its_host_and_outlives_it(pod: Pod) -> None:
    pod.start("serve")
    await unready_because(pod, "the kernel host is not there")
    pod.start("kernels")
    await eventually(pod.ready)
    isolation = (await pod.http.get("/v1/sandbox")).json()["data"]["isolation"]
    assert "separate_server" in isolation["held"]
    output = pod.workspace / "output"
    assert (await pod.execute("open('f', 'w').close()\n1", "s", cwd=str(output)))["status"] == "ok"
    assert (output / "f").stat().st_mode & 0o777 == 0o660
    pids = descendants(pod.programs["kernels"].process.pid)
    pod.kill("kernels")
    await unready_because(pod, "the kernel host is not there")
    assert (await pod.http.get("/healthz")).status_code == 200
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid))
    pod.start("kernels")
    await eventually(pod.ready)
    assert (await pod.execute("1", "s"))["outputs"][-1]["ename"] == "KernelDied"
    assert (await pod.execute("1", "s"))["status"] == "ok"


async def test_a_host_ends_the_kernels_of_a_server_that_is_gone_and_serves_the_next(pod: Pod) -> None:
    pod.start("kernels")
    pod.start("serve")
    await eventually(pod.ready)
    child = "import os, subprocess\nprint(os.getpid(), subprocess.Popen(['sleep', '1006']).pid)"
    text = (await pod.execute(child, "s"))["outputs"][0]["text"]
    pod.kill("serve")
    for pid in text.split():
        await eventually(lambda pid=pid: gone(int(pid)))
    await eventually(lambda: not list((pod.state_dir / "k").iterdir()))
    assert pod.programs["kernels"].process.poll() is None
    pod.start("serve")
    await eventually(pod.ready)
    assert (await pod.execute("1", "s"))["status"] == "ok"


async def test_both_end_on_sigterm_and_leave_nothing(pod: Pod) -> None:
    pod.start("kernels")
    pod.start("serve")
    await eventually(pod.ready)
    await pod.execute("1", "s")
    # The host lets the server finish first.
    pod.programs["kernels"].process.send_signal(signal.SIGTERM)
    assert (await pod.execute("1", "s"))["status"] == "ok"
    assert pod.kill("serve", signal.SIGTERM) in (0, -signal.SIGTERM), pod.programs["serve"].said()
    assert pod.programs["kernels"].process.wait(60) == 0, pod.programs["kernels"].said()
    assert [path.name for path in pod.state_dir.rglob("*")] == ["k"]


async def test_what_an_earlier_host_left_is_removed(pod: Pod) -> None:
    left = pod.state_dir / "k" / "left" / "work"
    left.mkdir(parents=True)
    (pod.state_dir / "host.sock").touch()
    pod.start("kernels")
    pod.start("serve")
    await eventually(pod.ready)
    assert not left.exists()
