"""The sandbox: how soon a session is there, how quick a cell, how much memory kernels cost.

A real ``s1vl-sandbox serve`` with its kernel host, spoken to over HTTP on the loopback interface, one kept connection.
Beside it stands what anyone gets from ``jupyter_client`` alone: a kernel started from nothing that imports the same
libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]  # its stubs are another package
from jupyter_client.manager import start_new_kernel

from bench.figures import Figure, percentile, percentiles
from hack.kube import wait_for
from hack.sandbox_program import SandboxProgram

MIB = 1024 * 1024
WARM = 2
SESSIONS_AT_ONCE = 50
ACQUIRES = 100
CELLS = 500
COLD_STARTS = 3
PATIENCE_SECONDS = 120
LOOK_SECONDS = 0.01
IMPORTS = "import numpy, cv2, PIL.Image, matplotlib.pyplot"


class Sandbox:
    """A running server and a client for it."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process
        self.http = httpx.Client(base_url=url, timeout=PATIENCE_SECONDS)
        # What is timed goes over this one: httpx itself takes more than a millisecond for each request.
        self._wire = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_SECONDS)

    def _timed(self, path: str, body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        content = json.dumps(body).encode()
        began = time.perf_counter()
        self._wire.request("POST", path, content, {"Content-Type": "application/json"})
        answer = self._wire.getresponse()
        text = answer.read()
        took = time.perf_counter() - began
        if answer.status != httpx.codes.OK:
            raise RuntimeError(f"{path}: HTTP {answer.status}: {text[:500]!r}")
        data: dict[str, Any] = json.loads(text)["data"]
        return took, data

    def create(self, name: str) -> float:
        """Open a session and return the seconds it took."""
        return self._timed("/v1/jupyter/sessions/create", {"session_id": name})[0]

    def execute(self, name: str, code: str) -> float:
        """Run a cell that must end well and return the seconds it took."""
        took, data = self._timed("/v1/jupyter/execute", {"session_id": name, "code": code, "timeout": 60})
        if data["status"] != "ok":
            raise RuntimeError(f"{code!r} ended with {data['status']}: {data['outputs']}")
        return took

    def delete(self, name: str) -> None:
        """Close a session."""
        self.http.delete(f"/v1/jupyter/sessions/{name}").raise_for_status()

    def settle(self, warm: int = WARM) -> None:
        """Wait until the pool is full."""
        wait_for(
            f"{warm} warm kernels",
            lambda: self.http.get("/v1/jupyter/info").json()["data"]["warm_kernels"] >= warm,
            every=LOOK_SECONDS,
        )

    def processes(self) -> list[psutil.Process]:
        """The server with everything below it."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[Sandbox]:
    """A server with settings of its own, ended with all its kernels."""
    with tempfile.TemporaryDirectory(prefix="s1vl-bench-", dir="/tmp") as folder:
        program = SandboxProgram(Path(folder), **settings)
        sandbox = Sandbox(program.url, program.process)
        try:
            wait_for("the sandbox", program.ready, every=LOOK_SECONDS)
            yield sandbox
        finally:
            sandbox.http.close()
            program.end()


def measure() -> Iterator[Figure]:
    """All figures of this part."""
    yield Figure("sandbox.acquire_cold_p50", statistics.median(_cold_starts()) * 1000, "ms")
    with running(max_sessions=SESSIONS_AT_ONCE + 5, warm_kernels=WARM) as sandbox:
        sandbox.settle()
        yield from _memory(sandbox)
        yield from percentiles("sandbox.acquire", list(_acquires(sandbox)), 50, 200)
        yield from _cells(sandbox)
        yield from _at_once(sandbox)


def _cold_starts() -> Iterator[float]:
    for _ in range(COLD_STARTS):
        began = time.perf_counter()
        manager, client = start_new_kernel(
            kernel_name="python3", startup_timeout=PATIENCE_SECONDS, stderr=subprocess.DEVNULL
        )
        client.execute_interactive(IMPORTS, timeout=PATIENCE_SECONDS)
        yield time.perf_counter() - began
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _acquires(sandbox: Sandbox) -> Iterator[float]:
    for number in range(ACQUIRES):
        sandbox.settle()
        yield sandbox.create(f"acquire-{number}")
        # A session that cannot run a cell has not been acquired.
        sandbox.execute(f"acquire-{number}", IMPORTS)
        sandbox.delete(f"acquire-{number}")


def _cells(sandbox: Sandbox) -> Iterator[Figure]:
    sandbox.create("cells")
    sandbox.settle()
    idle = [sandbox.execute("cells", "1+1") for _ in range(CELLS)]
    yield from percentiles("sandbox.cell", idle, 8)
    busy = []
    for number in range(20):
        # Every closed session leaves the pool one kernel to start.
        sandbox.create(f"refill-{number}")
        busy += [sandbox.execute("cells", "1+1") for _ in range(10)]
        sandbox.delete(f"refill-{number}")
    yield Figure("sandbox.cell_while_refilling_ratio", percentile(busy, 50) / percentile(idle, 50))
    sandbox.delete("cells")


def _at_once(sandbox: Sandbox) -> Iterator[Figure]:
    async def open_and_use(http: httpx.AsyncClient, number: int) -> bool:
        body = {"session_id": f"crowd-{number}", "code": f"{number} + 1", "timeout": 60}
        created = await http.post("/v1/jupyter/sessions/create", json={"session_id": body["session_id"]})
        answer = (await http.post("/v1/jupyter/execute", json=body)).json()
        results = [o["data"]["text/plain"] for o in answer["data"]["outputs"] if o["output_type"] == "execute_result"]
        return created.status_code == httpx.codes.OK and results == [str(number + 1)]

    async def crowd() -> int:
        async with httpx.AsyncClient(base_url=sandbox.url, timeout=PATIENCE_SECONDS) as http:
            return sum(await asyncio.gather(*(open_and_use(http, number) for number in range(SESSIONS_AT_ONCE))))

    began = time.perf_counter()
    usable = asyncio.run(crowd())
    yield Figure("sandbox.sessions_at_once", usable, goal=SESSIONS_AT_ONCE, better="higher")
    yield Figure("sandbox.sessions_at_once_time", time.perf_counter() - began, "s")
    yield Figure("sandbox.memory_50_sessions", sum(_pss(p) for p in sandbox.processes()), "MiB")


def _memory(sandbox: Sandbox) -> Iterator[Figure]:
    """Proportional set sizes: a page that several processes share is counted once in their sum."""
    yield Figure("sandbox.memory_idle", sum(_pss(p) for p in sandbox.processes()), "MiB", 300)
    ready = {process.pid for process in sandbox.processes()}
    names = [f"memory-{number}" for number in range(WARM)]
    for name in names:
        sandbox.create(name)
        sandbox.execute(name, IMPORTS)
    # What was warm is in use now.
    used = [process.memory_full_info() for process in sandbox.processes() if process.pid in ready][2:]
    yield Figure("sandbox.memory_kernel_unique", statistics.mean(info.uss for info in used) / MIB, "MiB")
    yield Figure("sandbox.memory_kernel_rss", statistics.mean(info.rss for info in used) / MIB, "MiB")
    for name in names:
        sandbox.delete(name)


def _pss(process: psutil.Process) -> float:
    """MiB; a process that has just ended has none."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(rollup.split("Pss:")[1].split()[0]) / 1024
