"""A sandbox pod as a whole: what it weighs, and what is left of it when its kernels' container dies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hack.demo import ask, picture
from hack.kube import wait_for
from tests.e2e.conftest import Space

MIB = 1024 * 1024
WARM_KERNELS = """
import json, os, urllib.request
with urllib.request.urlopen(f"http://127.0.0.1:{os.environ['S1VL_SANDBOX_PORT']}/metrics", timeout=10) as metrics:
    lines = metrics.read().decode().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("s1vl_sandbox_warm_kernels ")))
"""
END = """
import os, time
os.kill(1, 15)
time.sleep(1)
os.kill(1, 15)
"""
"""The first signal has it drain, as long as its server is there; the second ends it. Two that come at once are one."""


@pytest.fixture(scope="module")
def ready(shared_space: Space) -> Space:
    shared_space.apply_ready(shared_space.deployment("chem"))
    return shared_space


def _pod(space: Space) -> dict[str, Any]:
    return space.pods("s1vl.io/tenant=chem,app.kubernetes.io/component=sandbox")[0]


def _restarts(space: Space, container: str) -> int:
    statuses = {status["name"]: status for status in _pod(space)["status"]["containerStatuses"]}
    count: int = statuses[container]["restartCount"]
    return count


def test_an_idle_sandbox_with_two_warm_kernels_weighs_little(ready: Space) -> None:
    """The kubelet's own figure for the whole pod: what it would evict by."""
    pod = _pod(ready)
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]

    def warm() -> bool:
        return float(ready.kube.exec(name, ready.name, "python3", "-c", WARM_KERNELS, container="sandbox")) >= 2

    wait_for("two warm kernels", warm)

    def working_set() -> int:
        summary = json.loads(ready.kube.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
        (found,) = (p for p in summary["pods"] if p["podRef"]["uid"] == pod["metadata"]["uid"])
        size: int = found["memory"]["workingSetBytes"]
        if size > 300 * MIB:
            raise LookupError(f"the pod's working set is {size / MIB:.0f} MiB")
        return size

    # The kubelet looks every ten seconds or so, and what a probe's own process took must have gone.
    size = wait_for("a working set of at most 300 MiB", working_set)
    print(f"sandbox.pod_memory_idle: {size / MIB:.0f} MiB with two warm kernels (goal: at most 300)")


def test_the_server_sees_no_process_of_the_kernels_and_has_another_user(ready: Space) -> None:
    pod = _pod(ready)["metadata"]["name"]
    look = "import os; print(os.getuid(), open('/proc/1/cmdline').read().replace(chr(0), ' '))"
    server = ready.kube.exec(pod, ready.name, "python3", "-c", look, container="sandbox")
    kernels = ready.kube.exec(pod, ready.name, "python3", "-c", look, container="kernels")
    assert server.split()[0] != kernels.split()[0]
    assert "serve" in server
    assert "kernels" in kernels
    environment = ready.kube.exec(pod, ready.name, "env", container="kernels")
    assert "API_KEY" not in environment


def test_a_dead_container_of_kernels_costs_its_sessions_only(ready: Space, tmp_path: Any) -> None:
    server, kernels = _restarts(ready, "sandbox"), _restarts(ready, "kernels")
    pod = _pod(ready)["metadata"]["name"]
    ready.kube.exec(pod, ready.name, "python3", "-c", END, container="kernels")
    wait_for("the kernels' container to have restarted", lambda: _restarts(ready, "kernels") > kernels)
    ready.wait_condition("Ready", "True")
    wait_for("the pod to be ready", lambda: all(s["ready"] for s in _pod(ready)["status"]["containerStatuses"]))
    assert _restarts(ready, "sandbox") == server

    truth = picture.write(tmp_path / "p.png", seed=7)
    path = ready.put_image("chem", "p.png", (tmp_path / "p.png").read_bytes())
    with ready.orchestrator() as http:
        result = ask.ask(str(http.base_url), tmp_path / "p.png", path, api_key=ready.tenant_key("chem"))
    assert truth.colour in result["answer"]
