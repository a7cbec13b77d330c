"""The name of the engine's pods: who takes requests is in it, who does not is not."""

from __future__ import annotations

import yaml

from hack.kube import wait_for
from tests.e2e.conftest import Space

_RESOLVE = """
import socket, sys
try:
    found = socket.getaddrinfo(sys.argv[1], 9200, type=socket.SOCK_STREAM)
except socket.gaierror:
    found = []
print(" ".join(sorted({one[4][0] for one in found})))
"""
_FAULTS = """
import sys, urllib.request
request = urllib.request.Request(f"http://{sys.argv[1]}:9200/sim/faults", sys.argv[2].encode(), method="PUT")
request.add_header("Content-Type", "application/json")
print(urllib.request.urlopen(request, timeout=10).status)
"""


def test_the_orchestrator_finds_the_ready_engine_pods_and_reaches_each(space: Space) -> None:
    space.apply_ready(space.deployment(engine={"replicas": 2}))
    config = yaml.safe_load(space.kube.get("configmap", "demo-orchestrator", space.name)["data"]["config.yaml"])
    host = config["engine"]["podsHost"]

    def python(program: str, *words: str) -> str:
        return space.kube.exec("deploy/demo-orchestrator", space.name, "python3", "-c", program, *words).strip()

    def engines() -> list[str]:
        pods = space.pods("app.kubernetes.io/component=engine")
        return sorted(pod["status"]["podIP"] for pod in pods)

    wait_for("both pods to be in the name", lambda: python(_RESOLVE, host).split() == engines() and len(engines()) == 2)
    sick, well = engines()
    # From inside the orchestrator's pod, so through its NetworkPolicy and the engine's.
    assert python(_FAULTS, sick, '{"health_status": 503}') == "200"
    wait_for("the sick pod to leave the name", lambda: python(_RESOLVE, host) == well)
    assert python(_FAULTS, well, "{}") == "200"
    assert python(_FAULTS, sick, "{}") == "200"
    wait_for("the mended pod to be back", lambda: python(_RESOLVE, host).split() == engines())
    space.wait_condition("EngineReady", "True", "EngineReady")
