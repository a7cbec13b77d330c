"""The service around the kernels: keys, readiness, metrics, what is left out, shutdown, the program itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from hack.sandbox_program import SandboxProgram
from s1vl_sandbox import link
from s1vl_sandbox.containment import Protection
from s1vl_sandbox.processes import children, descendants

from .conftest import Runner, Sandbox, eventually, gone, names_in

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
    isolation = first["data"]["isolation"]
    assert set(isolation["held"]) | set(isolation["missing"]) == set(Protection)
    assert "separate_server" in isolation["missing"]
    assert first["detail"]["runtime"]["python"][0]["ver"].startswith("3.")
    info = (await sandbox.http.get("/v1/jupyter/info")).json()["data"]
    assert info["default_kernel"] == "python3"
    assert info["session_timeout_seconds"] == 1800


async def test_metrics(sandbox: Sandbox) -> None:
    await eventually(lambda: sandbox.server.pool.size > 0)
    await sandbox.execute("1/0", "takes a warm one")
    text = (await sandbox.http.get("/metrics")).text
    assert f"s1vl_sandbox_sessions {len(await sandbox.session_ids())}.0" in text
    assert 's1vl_sandbox_cells_total{status="error"}' in text
    assert 's1vl_sandbox_acquire_seconds_bucket{le="0.05",source="warm"}' in text
    assert 's1vl_sandbox_protection{name="separate_server"} 0.0' in text


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


async def test_readiness_uses_no_session_and_ends_its_kernel(runner: Runner) -> None:
    now = time.monotonic()
    async with runner() as sandbox:
        readiness = sandbox.server.readiness
        readiness._clock = lambda: now
        for _ in range(3):
            now += 60
            assert (await readiness.check()).reason == "a kernel ran 1 + 1"
            assert sandbox.server.pool.pids == set()
        assert (await readiness.check()).reason == "a kernel ran 1 + 1 within the last 10 s"
        assert await sandbox.session_ids() == set()


async def test_warm_kernels_that_died_are_replaced(runner: Runner) -> None:
    async with runner(warm_kernels=1) as sandbox:
        await eventually(lambda: sandbox.server.pool.size == 1)
        (pid,) = descendants(sandbox.host_pid)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: descendants(sandbox.host_pid) - {pid} and sandbox.server.pool.size == 1)
        assert await sandbox.printed("print(1)", "s") == "1"


async def test_a_host_that_dies_takes_its_kernels_along_and_is_replaced(runner: Runner) -> None:
    async with runner(max_sessions=4) as sandbox:
        await sandbox.execute("x = 1", "idle")
        begun = sandbox.workspace / "begun"
        code = f"open({str(begun)!r}, 'w').close()\nimport time\ntime.sleep(1000)"
        cell = asyncio.create_task(sandbox.execute(code, "busy", timeout=300, cwd=str(sandbox.workspace)))
        await eventually(begun.exists)
        pids = {sandbox.host_pid} | descendants(sandbox.host_pid)
        os.kill(sandbox.host_pid, signal.SIGKILL)
        data = await cell
        assert (data["status"], data["state_lost"]) == ("error", True)
        assert data["outputs"][-1]["ename"] == "KernelDied"
        refused = await sandbox.http.get("/readyz")
        assert refused.status_code == 503
        assert "kernel host" in refused.json()["reason"]
        assert (await sandbox.http.get("/healthz")).status_code == 200
        for pid in pids:
            await eventually(lambda pid=pid: gone(pid))
        # Whoever only looked away learns of it before code runs without the variables.
        assert (await sandbox.execute("x", "idle"))["outputs"][-1]["ename"] == "KernelDied"
        assert (await sandbox.execute("x", "idle"))["outputs"][-1]["ename"] == "NameError"
        await sandbox.ready()
        metrics = (await sandbox.http.get("/metrics")).text
        assert 's1vl_sandbox_kernel_ends_total{cause="host_lost"} 2.0' in metrics


async def test_readiness_says_why_kernels_do_not_start(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    async with runner() as sandbox:
        monkeypatch.setattr(sys, "executable", "/nonexistent/python")
        os.kill(sandbox.host_pid, signal.SIGKILL)
        await eventually(sandbox.unready)
        await eventually(lambda: "/nonexistent/python" in str(sandbox.server.link.problem))
        monkeypatch.setattr(link, "_WAIT_SECONDS", 0.1)
        refused = await sandbox.http.post("/v1/jupyter/execute", json={"code": "1", "session_id": "new"})
        assert refused.status_code == 503
        assert "/nonexistent/python" in refused.json()["message"]
        assert await sandbox.session_ids() == set()
        monkeypatch.undo()
        await sandbox.ready()


async def test_shutdown_leaves_no_process(runner: Runner) -> None:
    before = children()
    async with runner(warm_kernels=2, max_sessions=4) as sandbox:
        text = await sandbox.printed("import subprocess\nprint(subprocess.Popen(['sleep', '1004']).pid)", "s")
        pids = {sandbox.host_pid} | descendants(sandbox.host_pid)
        assert int(text) in pids
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid))
    assert children() <= before


@pytest_asyncio.fixture(loop_scope="session")
async def program(tmp_path: Path) -> AsyncIterator[SandboxProgram]:
    """`s1vl-sandbox` as a process of its own, as in a pod, ready to run code."""
    (tmp_path / "images").mkdir()
    program = SandboxProgram(tmp_path, workspace=tmp_path / "images")
    try:
        await eventually(lambda: asyncio.to_thread(program.ready))
        yield program
    finally:
        program.end(signal.SIGKILL)


async def post(program: SandboxProgram, path: str, **body: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=program.url, timeout=60) as http:
        data: dict[str, Any] = (await http.post(path, json=body)).json()["data"]
        return data


async def test_the_program_ends_strays_and_stops_on_sigterm(program: SandboxProgram, tmp_path: Path) -> None:
    # The kernel dies without a word and leaves a daemon.
    workspace = tmp_path / "images"
    daemon = workspace / "daemon"
    code = f"!nohup sleep 1005 >/dev/null 2>&1 & echo $! > {daemon}\nimport os\nos._exit(0)"
    answer = await post(program, "/v1/jupyter/execute", code=code, cwd=str(workspace))
    assert answer["outputs"][-1]["ename"] == "KernelDied"
    await eventually(lambda: gone(int(daemon.read_text())))
    pids = descendants(program.process.pid)
    assert pids
    async with httpx.AsyncClient(base_url=program.url, timeout=60) as http:
        await http.delete("/v1/jupyter/sessions")
    program.process.send_signal(signal.SIGTERM)
    await eventually(lambda: program.process.poll() is not None)
    assert program.process.returncode == 0, program.said()
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid))
    assert names_in(tmp_path) == ["images", "log"]
    for line in program.log.read_text().splitlines():
        assert {"time", "level", "logger", "message"} <= set(json.loads(line))


async def test_kernels_die_with_a_server_that_is_killed(program: SandboxProgram) -> None:
    """With the host, the waiting processes and those that were just starting, for one has been taken."""
    await post(program, "/v1/jupyter/sessions/create")
    await eventually(lambda: len(descendants(program.process.pid)) >= 3)
    pids = descendants(program.process.pid)
    program.end(signal.SIGKILL)
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid))
