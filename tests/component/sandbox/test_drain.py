"""SIGTERM: open sessions go on until they are closed, no other is opened, and then the programs end."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from hack.sandbox_program import SandboxProgram
from s1vl_sandbox.processes import descendants, parents

from .conftest import eventually, gone, names_in
from .pod import Pod

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def running(pod: Pod) -> Pod:
    """Both programs, ready."""
    pod.start("kernels")
    pod.start("serve")
    await eventually(pod.ready)
    return pod


def terminate(pod: Pod) -> None:
    """Do what the deletion of a pod does: SIGTERM to both at once."""
    for program in pod.programs.values():
        program.process.send_signal(signal.SIGTERM)


async def both_ended(pod: Pod) -> None:
    """Wait until both have ended, and well."""
    for program in pod.programs.values():
        await eventually(lambda program=program: program.process.poll() is not None)
        assert program.process.returncode == 0, program.said()
    assert names_in(pod.state_dir) == ["k"]
    assert names_in(pod.state_dir / "k") == []


async def opens_nothing(http: httpx.AsyncClient) -> None:
    """Every way to open a session is refused, with what lets the caller go elsewhere."""
    for path, body in {
        "/v1/jupyter/sessions/create": {"session_id": "new"},
        "/v1/jupyter/execute": {"session_id": "new", "code": "1"},
        "/v1/code/execute": {"language": "python", "code": "1"},
    }.items():
        refused = await http.post(path, json=body)
        assert refused.status_code == 503, path
        assert (refused.json()["success"], refused.json()["message"]) == (False, "draining")


async def test_open_sessions_go_on_and_no_other_is_opened(running: Pod) -> None:
    cwd = str(running.workspace)
    await running.execute("x = 41", "one", cwd=cwd)
    code = "import os, time\nopen('begun', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)"
    cell = asyncio.create_task(running.execute(code, "two", cwd=cwd, timeout=300))
    await eventually((running.workspace / "begun").exists)
    terminate(running)
    await eventually(lambda: running.unready_because("draining"))
    await opens_nothing(running.http)
    assert (await running.http.get("/healthz")).status_code == 200
    # A connection that is made only now is heard, too.
    async with httpx.AsyncClient(base_url=running.http.base_url, timeout=60) as other:
        answer = await other.post("/v1/jupyter/execute", json={"session_id": "one", "code": "x + 1"})
        assert answer.json()["data"]["outputs"][0]["data"]["text/plain"] == "42"
        assert (await other.delete("/v1/jupyter/sessions/one")).status_code == 200
    (running.workspace / "go").touch()
    assert (await cell)["status"] == "ok"
    assert all(program.process.poll() is None for program in running.programs.values())
    assert (await running.http.delete("/v1/jupyter/sessions/two")).status_code == 200
    await both_ended(running)


async def test_without_sessions_both_end_at_once(running: Pod) -> None:
    pids = descendants(running.programs["kernels"].process.pid)
    terminate(running)
    await both_ended(running)
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid))


async def test_a_session_that_loses_its_kernel_gets_another_one(running: Pod) -> None:
    await running.execute("1", "s")
    terminate(running)
    await eventually(lambda: running.unready_because("draining"))
    assert (await running.execute("import os\nos._exit(1)", "s"))["outputs"][-1]["ename"] == "KernelDied"
    assert (await running.execute("1", "s"))["status"] == "ok"
    await running.http.delete("/v1/jupyter/sessions")
    await both_ended(running)


async def test_forgotten_sessions_expire(pod: Pod) -> None:
    pod.start("kernels")
    pod.start("serve", session_timeout_seconds=1)
    await eventually(pod.ready)
    await pod.http.post("/v1/jupyter/sessions/create", json={})
    terminate(pod)
    await both_ended(pod)


async def test_a_second_signal_ends_running_cells(running: Pod) -> None:
    begun = running.workspace / "begun"
    code = f"import os, time\nprint(os.getpid(), file=open({str(begun)!r}, 'w'), flush=True)\ntime.sleep(1000)"
    cell = asyncio.create_task(running.execute(code, "s", cwd=str(running.workspace), timeout=300))
    await eventually(lambda: begun.exists() and begun.read_text().endswith("\n"))
    pid = int(begun.read_text())
    terminate(running)
    await eventually(lambda: running.unready_because("draining"))
    terminate(running)
    await both_ended(running)
    await eventually(lambda: gone(pid))
    # An answer if there was time for one, else a connection that is cut.
    await asyncio.gather(cell, return_exceptions=True)


async def test_a_host_whose_server_is_killed_does_not_wait_for_the_next(running: Pod) -> None:
    await running.execute("1", "s")
    running.programs["kernels"].process.send_signal(signal.SIGTERM)
    assert (await running.execute("1", "s"))["status"] == "ok"
    running.kill("serve")
    assert running.programs["kernels"].process.wait(60) == 0, running.programs["kernels"].said()


@pytest.mark.parametrize("command", ["serve", "kernels"])
async def test_a_program_that_is_only_starting_ends(pod: Pod, command: str) -> None:
    pod.start(command)
    program = pod.programs[command]
    await eventually(lambda: catches(program.process.pid, signal.SIGTERM))
    assert pod.kill(command, signal.SIGTERM) == 0, program.said()


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest_asyncio.fixture(loop_scope="session")
async def program() -> AsyncIterator[SandboxProgram]:
    """One process that starts its own kernel host, ready."""
    with tempfile.TemporaryDirectory(prefix="s1vl-test-", dir="/tmp") as folder:
        started = SandboxProgram(Path(folder))
        try:
            await eventually(lambda: asyncio.to_thread(started.ready))
            yield started
        finally:
            started.end(signal.SIGKILL)


async def test_a_server_with_a_host_of_its_own_drains(program: SandboxProgram) -> None:
    async with httpx.AsyncClient(base_url=program.url, timeout=60) as http:
        body = {"session_id": "s", "code": "x = 41"}
        assert (await http.post("/v1/jupyter/execute", json=body)).status_code == 200
        pids = descendants(program.process.pid)
        # Where a service manager ends it, everything below it gets the signal.
        (host,) = (pid for pid, parent in parents().items() if parent == program.process.pid)
        for pid in (program.process.pid, host):
            os.kill(pid, signal.SIGTERM)
        await eventually(lambda: asyncio.to_thread(lambda: not program.ready()))
        await opens_nothing(http)
        answer = await http.post("/v1/jupyter/execute", json={**body, "code": "x + 1"})
        assert answer.json()["data"]["outputs"][0]["data"]["text/plain"] == "42"
        assert (await http.delete("/v1/jupyter/sessions/s")).status_code == 200
        await eventually(lambda: program.process.poll() is not None)
    assert program.process.returncode == 0, program.said()
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid))
    assert names_in(program.log.parent) == ["log"]
