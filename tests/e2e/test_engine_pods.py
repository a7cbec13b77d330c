"""The name of the engine's pods: who takes requests is in it, who does not is not."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

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
_RUNNING = """
import sys, urllib.request
lines = urllib.request.urlopen(f"http://{sys.argv[1]}:9200/metrics", timeout=10).read().decode().splitlines()
print(sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:num_requests_running{")))
"""
_LISTED = """
import json, urllib.request
pods = json.load(urllib.request.urlopen("http://127.0.0.1:10045/internal/tenants", timeout=10))["engine"]["pods"]
print(" ".join(sorted(pod["address"].rpartition(":")[0] for pod in pods if pod["listed"])))
"""
_ASK = """
import sys, urllib.request
request = urllib.request.Request(f"http://{sys.argv[1]}:9200/v1/chat/completions", sys.argv[2].encode())
request.add_header("Content-Type", "application/json")
print(urllib.request.urlopen(request, timeout=60).status)
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


def test_jobs_go_on_where_one_engine_pod_of_two_hangs(space: Space) -> None:
    """Its health check stays 200; what tells is that it makes no step."""
    manifest = space.deployment(engine={"replicas": 2, "stallTimeoutSeconds": 10})
    space.apply_ready(manifest)
    engines = space.pods("app.kubernetes.io/component=engine")
    hung = next(pod for pod in engines if pod["metadata"]["name"].endswith("1"))

    def python(program: str, *words: str) -> str:
        address = hung["status"]["podIP"]
        return space.kube.exec(
            "deploy/demo-orchestrator", space.name, "python3", "-c", program, address, *words
        ).strip()

    # DNS may still have cached that there is none: the Service, which is asked then, may send all to one pod.
    addresses = sorted(pod["status"]["podIP"] for pod in engines)
    wait_for("the orchestrator to know both pods", lambda: python(_LISTED).split() == addresses)
    assert python(_FAULTS, '{"token_delay_ms": 1000}') == "200"
    question = {"messages": [{"role": "user", "content": "Which gas is it?"}], "model": "ScienceOne-AI/S1-VL-32B"}
    headers = {"X-API-Key": space.tenant_key(manifest["spec"]["tenants"][0]["name"])}
    with space.orchestrator() as http, ThreadPoolExecutor(4) as at_once:
        # At once, so that some go to each.
        asked = [at_once.submit(http.post, "/v1/chat/completions", json=question, headers=headers) for _ in range(4)]
        wait_for("requests to run there", lambda: float(python(_RUNNING)) > 0)
        assert python(_FAULTS, '{"hang": true}') == "200"
        seen = f"computed nothing for 10 s: {hung['metadata']['name']}"
        wait_for("it to be noticed", lambda: seen in space.condition("EngineReady")["message"])
        space.wait_condition("EngineReady", "True", "EngineDegraded")
        assert [answer.result().status_code for answer in asked] == [200] * 4
        # Not at once: the orchestrator has to read which pod to leave.
        space.wait_condition("Ready", "True")
        assert http.post("/v1/chat/completions", json=question, headers=headers).status_code == 200
    # A pod so young is not restarted. It gets no requests that could show that it computes again, so its own must.
    assert python(_FAULTS, "{}") == "200"
    assert python(_ASK, json.dumps(question)) == "200"
    space.wait_condition("EngineReady", "True", "EngineReady")
