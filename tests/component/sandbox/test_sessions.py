"""Sessions over HTTP: names, isolation, limits, expiry, end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from .conftest import SHARED_SESSION, Runner, Sandbox, eventually, gone

pytestmark = pytest.mark.asyncio(loop_scope="session")

WHERE = "import os\nprint(os.getpid(), os.getcwd())"


async def test_sessions_share_no_variables_and_no_folder(sandbox: Sandbox) -> None:
    await sandbox.execute("x = 1\nopen('mine', 'w').close()", "one")
    assert (await sandbox.execute("x", "two"))["outputs"][-1]["ename"] == "NameError"
    assert await sandbox.printed("import os\nprint(os.listdir('.'))", "two") == "[]"
    assert await sandbox.printed(
        "print(x, os.listdir('.'))" if False else "import os\nprint(x, os.listdir('.'))", "one"
    )


async def test_without_a_name_every_call_gets_a_session_of_its_own(sandbox: Sandbox) -> None:
    first, second = await sandbox.execute("x = 1"), await sandbox.execute("x")
    assert second["status"] == "error"
    assert {first["session_id"], second["session_id"]} == await sandbox.session_ids() - {SHARED_SESSION}


async def test_two_sessions_run_at_the_same_time(sandbox: Sandbox, work_dir: Path) -> None:
    """Each cell ends only when it has seen the other one begin."""
    meet = "import os, time\nopen({mine!r}, 'w').close()\nwhile not os.path.exists({other!r}): time.sleep(0.01)"
    one, two, cwd = str(work_dir / "one"), str(work_dir / "two"), str(work_dir)
    results = await asyncio.gather(
        sandbox.execute(meet.format(mine=one, other=two), "one", cwd=cwd),
        sandbox.execute(meet.format(mine=two, other=one), "two", cwd=cwd),
    )
    assert [r["status"] for r in results] == ["ok", "ok"]


async def test_cells_of_one_session_run_one_after_the_other(sandbox: Sandbox, session_id: str) -> None:
    await sandbox.execute("n = 0", session_id)
    await asyncio.gather(
        *(sandbox.execute("k = n; __import__('time').sleep(0.01); n = k + 1", session_id) for _ in range(10))
    )
    assert await sandbox.printed("print(n)", session_id) == "10"


async def test_create_list_get_delete(sandbox: Sandbox, session_id: str) -> None:
    http = sandbox.http
    for _ in range(2):
        created = (await http.post("/v1/jupyter/sessions/create", json={"session_id": session_id})).json()
        assert created["success"] is True
        assert created["data"]["session_id"] == session_id
        assert created["data"]["kernel_name"] == "python3"
    listed = (await http.get("/v1/jupyter/sessions")).json()["data"]["sessions"]
    assert session_id in listed
    assert set(listed[session_id]) == {"kernel_name", "last_used", "age_seconds"}
    one = (await http.get(f"/v1/jupyter/sessions/{session_id}")).json()["data"]
    assert one == {"session_id": session_id, **listed[session_id]} | {"age_seconds": one["age_seconds"]}
    assert (await http.delete(f"/v1/jupyter/sessions/{session_id}")).json()["success"] is True
    for method in ("GET", "DELETE"):
        answer = await http.request(method, f"/v1/jupyter/sessions/{session_id}")
        assert answer.status_code == 404
        assert answer.json()["success"] is False


async def test_delete_ends_every_process_and_removes_every_file(sandbox: Sandbox, session_id: str) -> None:
    text = await sandbox.printed(
        "import os, subprocess\n"
        "os.makedirs('locked/inner')\nopen('locked/inner/f', 'w').close()\nos.chmod('locked', 0)\n"
        "child = subprocess.Popen(['sleep', '1002'])\n"
        "daemon = get_ipython().getoutput('sleep 1003 >/dev/null 2>&1 & echo $!')\n"
        "print(os.getpid(), child.pid, *daemon, os.getcwd())",
        session_id,
    )
    *pids, folder = text.split()
    assert (await sandbox.http.delete(f"/v1/jupyter/sessions/{session_id}")).status_code == 200
    assert not Path(folder).parent.exists()
    for pid in pids:
        await eventually(lambda pid=pid: gone(int(pid)))


async def test_delete_ends_a_running_cell_and_the_waiting_ones(
    sandbox: Sandbox, session_id: str, work_dir: Path
) -> None:
    begun = work_dir / "begun"
    code = "open('begun', 'w').close()\nimport time\ntime.sleep(100)"
    running = asyncio.create_task(sandbox.execute(code, session_id, timeout=100, cwd=str(work_dir)))
    await eventually(begun.exists)
    waiting = asyncio.create_task(
        sandbox.http.post("/v1/jupyter/execute", json={"code": "1", "session_id": session_id})
    )
    await eventually(lambda: sandbox.server.sessions.get(session_id).running == 2)  # type: ignore[union-attr]
    await sandbox.http.delete(f"/v1/jupyter/sessions/{session_id}")
    assert (await running)["outputs"][-1]["ename"] == "SessionClosed"
    assert (await waiting).status_code == 409


async def test_a_used_kernel_never_serves_another_session(sandbox: Sandbox) -> None:
    seen = set()
    for n in range(4):
        seen.add(await sandbox.printed(WHERE, f"session {n}"))
        await sandbox.http.delete(f"/v1/jupyter/sessions/session {n}")
    assert len(seen) == 4


async def test_working_directory(sandbox: Sandbox, session_id: str, work_dir: Path) -> None:
    code = "import os\nprint(os.getcwd())"
    assert await sandbox.printed(code, session_id, cwd=str(work_dir)) == str(work_dir)
    assert await sandbox.printed(code, session_id) == str(work_dir)
    await sandbox.execute("os._exit(0)", session_id)
    assert await sandbox.printed(code, session_id) == str(work_dir), "a fresh kernel starts where the session was"
    await sandbox.http.post("/v1/jupyter/sessions/create", json={"session_id": "other", "cwd": str(work_dir)})
    assert await sandbox.printed(code, "other") == str(work_dir)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "body.code"),
        ({"code": 1}, 422, "body.code"),
        ({"code": "1", "timeout": 0}, 422, "body.timeout"),
        ({"code": "1", "timeout": 301}, 422, "body.timeout"),
        ({"code": "1", "session_id": ""}, 422, "body.session_id"),
        ({"code": "1", "session_id": "x" * 201}, 422, "body.session_id"),
        ({"code": "1", "kernel_name": "julia"}, 400, "no kernel 'julia'"),
        ({"code": "1", "cwd": "relative"}, 400, "cwd 'relative'"),
        ({"code": "1", "cwd": "/nowhere"}, 400, "cwd '/nowhere'"),
        ({"code": "1", "cwd": "/a\0b"}, 400, "cwd"),
        ({"code": "1", "cwd": "/etc/passwd"}, 400, "cwd '/etc/passwd'"),
    ],
)
async def test_bad_requests_are_explained_and_leave_no_session(
    sandbox: Sandbox, body: dict[str, Any], status: int, says: str
) -> None:
    response = await sandbox.http.post("/v1/jupyter/execute", json=body)
    assert response.status_code == status
    assert response.json()["success"] is False
    assert says in response.json()["message"]
    assert await sandbox.session_ids() <= {SHARED_SESSION}


async def test_the_session_limit(runner: Runner) -> None:
    async with runner(max_sessions=2) as sandbox:
        http = sandbox.http
        await sandbox.execute("1", "one")
        await sandbox.execute("1", "two")
        for path, body in (("execute", {"code": "1"}), ("sessions/create", {})):
            response = await http.post(f"/v1/jupyter/{path}", json=body)
            assert response.status_code == 400
            assert response.json()["success"] is False
            assert "session limit reached: 2 of 2" in response.json()["message"]
        assert (await sandbox.execute("1", "one"))["status"] == "ok"
        info = (await http.get("/v1/jupyter/info")).json()["data"]
        assert (info["active_sessions"], info["max_sessions"]) == (2, 2)
        await http.delete("/v1/jupyter/sessions/one")
        assert (await sandbox.execute("1", "three"))["status"] == "ok"
        assert (await http.delete("/v1/jupyter/sessions")).json()["success"] is True
        assert await sandbox.session_ids() == set()


async def test_unused_sessions_expire(runner: Runner) -> None:
    now = 1000.0
    async with runner(clock=lambda: now, session_timeout_seconds=60, max_sessions=4) as sandbox:
        pid = int((await sandbox.printed(WHERE, "old")).split()[0])
        now += 40
        await sandbox.execute("1", "young")
        now += 30
        assert await sandbox.server.sessions.expire() == ["old"]
        assert await sandbox.session_ids() == {"young"}
        await eventually(lambda: gone(pid))
        assert (await sandbox.execute("1", "old"))["execution_count"] == 1, "the name is free again"


async def test_many_sessions_at_once(runner: Runner) -> None:
    async with runner(max_sessions=6, warm_kernels=2) as sandbox:
        seen = await asyncio.gather(*(sandbox.printed(WHERE, f"s{n}") for n in range(6)))
        assert len(set(seen)) == 6
