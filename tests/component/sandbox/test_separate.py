"""Server and kernel host as two programs that share a state folder, as in a pod."""

from __future__ import annotations

import pytest

from s1vl_sandbox.processes import descendants

from .conftest import eventually, gone
from .pod import Pod

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_server_waits_for_its_host_and_outlives_it(pod: Pod) -> None:
    pod.start("serve")
    await eventually(lambda: pod.unready_because("the kernel host is not there"))
    pod.start("kernels")
    await eventually(pod.ready)
    isolation = (await pod.http.get("/v1/sandbox")).json()["data"]["isolation"]
    assert "separate_server" in isolation["held"]
    output = pod.workspace / "output"
    assert (await pod.execute("open('f', 'w').close()\n1", "s", cwd=str(output)))["status"] == "ok"
    assert (output / "f").stat().st_mode & 0o777 == 0o660
    pids = descendants(pod.programs["kernels"].process.pid)
    pod.kill("kernels")
    await eventually(lambda: pod.unready_because("the kernel host is not there"))
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


async def test_what_an_earlier_host_left_is_removed(pod: Pod) -> None:
    left = pod.state_dir / "k" / "left" / "work"
    left.mkdir(parents=True)
    (pod.state_dir / "host.sock").touch()
    pod.start("kernels")
    pod.start("serve")
    await eventually(pod.ready)
    assert not left.exists()
