"""The service around the kernels: keys, readiness, metrics, what is left out, shutdown, the program itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from s1vl_sandbox.processes import children, descendants

from .conftest import SHARED_SESSION, Runner, Sandbox, eventually, gone, names_in

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "correct horse"


async def test_what_is_left_out_answers_404_with_a_hint(sandbox: Sandbox) -> None:
    for path in ("/v1/browser/info", "/v1/shell/exec", "/v1/mcp/servers", "/v1/nothing"):
        response = await sandbox.http.post(path, json={})
        assert response.status_code == 404
        assert response.json()["success"] is False
        assert response.json()["hint"]
    assert (await sandbox.http.get("/nothing")).json()["success"] is False


async def test_sandbox_info(sandbox: Sandbox) -> None:
    first, second = [(await sandbox.http.get("/v1/sandbox")).json() for _ in range(2)]
    assert first["success"] is True
    assert first["data"]["boot_id"] == second["data"]["boot_id"] == sandbox.server.boot_id
    assert first["data"]["limits"]["kernel"]["memory_bytes"] == 4 * 2**30
    assert first["detail"]["runtime"]["python"][0]["ver"].startswith("3.")
    info = (await sandbox.http.get("/v1/jupyter/info")).json()["data"]
    assert info["default_kernel"] == "python3"
    assert info["session_timeout_seconds"] == 1800


async def test_metrics(sandbox: Sandbox) -> None:
    await sandbox.execute("1/0", SHARED_SESSION)
    text = (await sandbox.http.get("/metrics")).text
    assert "s1vl_sandbox_sessions 1.0" in text
    assert 's1vl_sandbox_cells_total{status="error"}' in text
    assert "s1vl_sandbox_acquire_seconds_bucket" in text


async def test_the_key(runner: Runner) -> None:
    async with runner(api_key_sha256=hashlib.sha256(KEY.encode()).hexdigest()) as sandbox:
        get = sandbox.http.get
        assert (await get("/v1/jupyter/info")).status_code == 401
        assert (await get("/v1/nothing")).status_code == 401
        assert (await get("/v1/jupyter/info", headers={"X-AIO-API-Key": "wrong"})).status_code == 401
        assert (await get("/v1/jupyter/info", headers={"X-AIO-API-Key": KEY})).status_code == 200
        assert (await get("/v1/jupyter/info", headers={"Authorization": f"Bearer {KEY}"})).status_code == 200
        assert (await get("/v1/jupyter/info", params={"api_key": KEY})).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await get(path)).status_code == 200


async def test_readiness_uses_no_session_and_keeps_the_kernel(sandbox: Sandbox) -> None:
    before = sandbox.server.pool.pids
    await eventually(lambda: sandbox.server.pool.size == 2)
    for _ in range(5):
        assert (await sandbox.http.get("/readyz")).status_code == 200
    assert sandbox.server.pool.pids >= before
    assert await sandbox.session_ids() <= {SHARED_SESSION}


async def test_a_warm_kernel_that_died_is_replaced(runner: Runner) -> None:
    async with runner() as sandbox:
        (pid,) = sandbox.server.pool.pids
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not any(kernel.alive for kernel in sandbox.server.pool._ready))
        await sandbox.ready()
        assert await sandbox.printed("print(1)", "s") == "1"


async def test_readiness_says_why_kernels_do_not_start(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    async with runner() as sandbox:
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        await sandbox.execute("1", "takes the warm one")
        sandbox.server.sessions._last_success = float("-inf")
        await eventually(lambda: sandbox.server.pool.last_error is not None)
        await eventually(sandbox.unready)
        assert "/nonexistent/python" in (await sandbox.http.get("/readyz")).json()["reason"]
        refused = await sandbox.http.post("/v1/jupyter/execute", json={"code": "1", "session_id": "new"})
        assert refused.status_code == 503
        assert await sandbox.session_ids() == {"takes the warm one"}
        monkeypatch.undo()
        await sandbox.ready()


async def test_kernels_are_known_from_their_first_moment(runner: Runner) -> None:
    """Else the search for strays would end those that take long to start."""
    async with runner(warm_kernels=2, max_sessions=4) as sandbox:
        before = children() - sandbox.server.factory.pids
        cells = asyncio.gather(*(sandbox.execute("1", f"s{n}") for n in range(4)))
        unknown: set[int] = set()
        while not cells.done():
            await asyncio.sleep(0.05)
            now = children() - sandbox.server.factory.pids - before
            assert not now & unknown, "the same process was unknown in two looks"
            unknown = now
        await cells


async def test_shutdown_leaves_no_process(runner: Runner) -> None:
    before = children()
    async with runner(warm_kernels=2, max_sessions=4) as sandbox:
        text = await sandbox.printed("import subprocess\nprint(subprocess.Popen(['setsid', 'sleep', '1004']).pid)", "s")
        pids = sandbox.server.pool.pids | {int(text)}
        assert all(not gone(pid) for pid in pids)
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid))
    assert children() <= before


class Program:
    """`s1vl-sandbox` as a process of its own, as in a pod."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        env = {"PATH": os.environ["PATH"], "S1VL_SANDBOX_PORT": str(port), "S1VL_SANDBOX_HOST": "127.0.0.1"}
        env |= {"S1VL_SANDBOX_STATE_DIR": str(folder), "HOME": str(folder)}
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "s1vl_sandbox"], env=env, stderr=log, stdout=log)
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60)

    async def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return (await self.http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False


async def test_the_program_ends_strays_and_stops_on_sigterm(tmp_path: Path) -> None:
    program = Program(tmp_path)
    try:
        await eventually(program.ready)
        # The kernel dies without a word, and the daemon has left its process group.
        daemon = tmp_path / "daemon"
        code = f"!setsid sleep 1005 >/dev/null 2>&1 & echo $! > {daemon}\nimport os\nos._exit(0)"
        answer = (await program.http.post("/v1/jupyter/execute", json={"code": code})).json()["data"]
        assert answer["outputs"][-1]["ename"] == "KernelDied"
        await eventually(lambda: gone(int(daemon.read_text())))
        pids = descendants(program.process.pid)
        assert pids
        program.process.send_signal(signal.SIGTERM)
        await eventually(lambda: program.process.poll() is not None)
        assert program.process.returncode in (0, -signal.SIGTERM), program.log.read_text()
        for pid in pids:
            await eventually(lambda pid=pid: gone(pid))
        assert names_in(tmp_path) == ["daemon", "log"]
        for line in program.log.read_text().splitlines():
            assert {"time", "level", "logger", "message"} <= set(json.loads(line))
    finally:
        program.process.kill()
        program.process.wait()
        await program.http.aclose()


async def test_kernels_die_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """Also those that were just starting: one warm kernel is taken, so that the next one is on its way."""
    program = Program(tmp_path)
    try:
        await eventually(program.ready)
        await program.http.post("/v1/jupyter/sessions/create", json={})
        await eventually(lambda: len(descendants(program.process.pid)) >= 2)
        pids = descendants(program.process.pid)
    finally:
        program.process.kill()
        program.process.wait()
        await program.http.aclose()
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid))
