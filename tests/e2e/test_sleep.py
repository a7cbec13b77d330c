"""A sandbox without pods that wakes for a request, and one of several pods that is to have fewer."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hack.demo import ask, picture
from hack.kube import wait_for
from tests.e2e.conftest import Space

PATIENCE = 180.0
CELL_SECONDS = 60
_SANDBOXES = """
import json, urllib.request
tenants = json.load(urllib.request.urlopen("http://127.0.0.1:10045/internal/tenants", timeout=10))["tenants"]
print(json.dumps(tenants[0]["sandboxes"]))
"""


def _tenant(space: Space, name: str) -> tuple[bool, str]:
    tenant = next(tenant for tenant in space.cr()["status"]["tenants"] if tenant["name"] == name)
    return tenant["ready"], tenant["reason"]


def test_a_sandbox_that_nobody_asks_for_goes_and_a_request_brings_it_back(space: Space, tmp_path: Path) -> None:
    space.apply_ready(space.deployment({"name": "chem", "sandbox": {"idleTimeoutSeconds": 30}}, "bio"))
    others = {
        pod["metadata"]["name"] for pod in space.pods() if pod["metadata"]["labels"].get("s1vl.io/tenant") != "chem"
    }
    wait_for("chem's sandbox to go", lambda: not space.pods("s1vl.io/tenant=chem"), timeout=PATIENCE)
    wait_for("it to be told", lambda: _tenant(space, "chem") == (True, "SandboxAsleep"), timeout=PATIENCE)
    space.wait_condition("Ready", "True")
    assert {pod["metadata"]["name"] for pod in space.pods()} == others

    truth = picture.write(tmp_path / "p.png", seed=3)
    path = space.put_image("chem", "p.png", (tmp_path / "p.png").read_bytes())
    with space.orchestrator() as http:
        result = ask.ask(str(http.base_url), tmp_path / "p.png", path, api_key=space.tenant_key("chem"))
    assert truth.colour in result["answer"]
    space.wait_condition("Ready", "True")
    lease = space.kube.get("lease", "demo-tenant-chem", space.name)["spec"]
    assert lease["holderIdentity"] in others
    # And again, in the end, whatever kept it awake.
    wait_for("chem's sandbox to go again", lambda: not space.pods("s1vl.io/tenant=chem"), timeout=PATIENCE)


def test_jobs_spread_over_the_pods_and_the_one_with_fewer_goes(space: Space, tmp_path: Path) -> None:
    sandbox = {"replicas": 2, "executionTimeoutSeconds": CELL_SECONDS}
    space.apply_ready(space.deployment("chem", sandbox=sandbox))
    budget = space.kube.get("pdb", "demo-sandbox-chem", space.name)
    assert budget["spec"]["maxUnavailable"] == 1

    def sandboxes() -> dict[str, dict[str, Any]]:
        """What the orchestrator says of each pod, by the pod's name."""
        text = space.kube.exec("deploy/demo-orchestrator", space.name, "python3", "-c", _SANDBOXES)
        known = {one["address"].rpartition(":")[0]: one for one in json.loads(text)}
        pods = space.pods("s1vl.io/tenant=chem")
        return {pod["metadata"]["name"]: known.get(pod["status"].get("podIP"), {}) for pod in pods}

    def both_checked() -> bool:
        return [one.get("consistent") for one in sandboxes().values()] == [True, True]

    def staying() -> list[str]:
        pods = space.pods("s1vl.io/tenant=chem")
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    wait_for("both pods to be checked", both_checked, timeout=PATIENCE)
    picture.write(tmp_path / "p.png", seed=3)
    path = space.put_image("chem", "p.png", (tmp_path / "p.png").read_bytes())
    body = {"messages": [{"type": "text", "text": "Please sleep forever."}], "image_path_list": [path]}
    headers = {"X-API-Key": space.tenant_key("chem")}
    with space.orchestrator() as http, ThreadPoolExecutor(3) as at_once:
        asked = [at_once.submit(http.post, "/process", json=body, headers=headers) for _ in range(3)]

        def spread() -> str:
            """The pod with two of the three jobs."""
            sessions = {name: one["sessions"] for name, one in sandboxes().items()}
            if sorted(sessions.values()) != [1, 2]:
                raise LookupError(f"sessions: {sessions}")
            return max(sessions, key=sessions.__getitem__)

        busier = wait_for("the jobs to be spread", spread, timeout=PATIENCE)
        space.kube.apply(space.deployment("chem", sandbox={**sandbox, "replicas": 1}))
        wait_for("one pod to go", lambda: len(staying()) == 1, timeout=PATIENCE)
        assert staying() == [busier]
        answers = [answer.result() for answer in asked]
    assert [(answer.status_code, answer.json()["stop_reason"]) for answer in answers] == [(200, "answer")] * 3
    space.wait_condition("Ready", "True")
