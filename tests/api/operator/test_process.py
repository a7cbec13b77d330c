"""The real process, as the chart runs it: with the chart's rights and no others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hack.cluster.api import Api, ApiError
from hack.ports import free_port
from tests.api.operator.conftest import Space, older_crd, token_kubeconfig, wait_for

ROOT = Path(__file__).parents[3]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
WATCHED_SECONDS = 45
"""Longer than the 30 s after which the operator looks again by itself."""


@dataclass
class Process:
    """One operator process."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    def http(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def leads(self) -> bool:
        return "s1vl_operator_leader 1.0" in self.http("/metrics")[1]

    def writes(self) -> dict[str, float]:
        """Write requests so far by verb and resource, without those on its Lease."""
        pattern = r'^s1vl_operator_api_requests_total\{code="(\d+)",resource="([^"]+)",verb="(\w+)"\} (\S+)'
        found = re.findall(pattern, self.http("/metrics")[1], re.MULTILINE)
        assert found
        reads = ("get", "list")
        return {f"{v} {r} {c}": float(n) for c, r, v, n in found if v not in reads and r != "leases"}

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=40)

    def said(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Start = Callable[[str], Process]


def ensure(api: Api, path: str, body: dict[str, object]) -> None:
    try:
        api.request("POST", path, body)
    except ApiError as error:
        if error.status != 409:
            raise


@pytest.fixture
def credentials(space: Space, kubeconfig: str, tmp_path: Path) -> Path:
    """A kubeconfig of a service account that may do what the chart's rules say, in the test's own namespace."""
    rules = yaml.safe_load((ROOT / "charts/s1vl/files/operator-rules.yaml").read_text())
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    own = [
        {**leases, "verbs": ["create"]},
        {**leases, "resourceNames": ["s1vl-operator"], "verbs": ["get", "update", "patch"]},
    ]
    slices = [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]}]
    name, namespace = f"operator-{space.namespace}", space.namespace
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    space.api.request("POST", accounts, {"metadata": {"name": "operator"}})
    for where, what in ((namespace, [*rules, *own]), ("default", slices)):
        path = f"{RBAC}/namespaces/{where}"
        ensure(space.api, f"{path}/roles", {"metadata": {"name": name}, "rules": what})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        ensure(space.api, f"{path}/rolebindings", {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    answer = space.api.request("POST", f"{accounts}/operator/token", {"spec": {"expirationSeconds": 3600}})
    file = tmp_path / "kubeconfig"
    file.write_text(token_kubeconfig(kubeconfig, answer["status"]["token"]))
    return file


@pytest.fixture
def nothing_but_a_lease(space: Space, credentials: Path) -> None:
    """Take away the rights on everything but the Lease and the look at the API server's addresses."""
    del credentials
    path = f"{RBAC}/namespaces/{space.namespace}/roles/operator-{space.namespace}"
    role = space.api.request("GET", path)
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] == ["leases"]]
    space.api.request("PUT", path, role)


@pytest.fixture
def start(space: Space, credentials: Path, tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def begin(name: str) -> Process:
        port, log = free_port(), tmp_path / f"{name}.log"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("S1VL_")},
            "KUBECONFIG": str(credentials),
            "S1VL_OPERATOR_NAMESPACE": space.namespace,
            "S1VL_OPERATOR_WATCH_NAMESPACES": space.namespace,
            "S1VL_OPERATOR_POD_NAME": name,
            "S1VL_OPERATOR_HTTP_PORT": str(port),
        }
        with log.open("wb") as file:
            popen = subprocess.Popen(
                [sys.executable, "-m", "s1vl_operator"], env=environment, stderr=file, cwd=tmp_path
            )
        started.append(Process(popen, port, log))
        return started[-1]

    yield begin
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()


def quickstart(space: Space) -> None:
    manifest = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
    manifest["metadata"]["namespace"] = space.namespace
    space.api.request("POST", space.path("S1VLDeployment"), manifest)


def test_the_quickstart_becomes_objects_and_an_invalid_one_beside_it_says_so(space: Space, start: Start) -> None:
    process = start("operator-0")
    wait_for("the operator to be ready", lambda: process.http("/readyz")[0] == 200 and process.leads())
    quickstart(space)
    wait_for("the engine", lambda: "demo-engine" in space.names("StatefulSet"))
    wait_for("a status", lambda: space.condition("Progressing").get("reason") == "RolloutInProgress")
    assert space.names("StatefulSet") == ["demo-engine"]
    assert space.names("Deployment") == ["demo-orchestrator", "demo-sandbox-chem"]
    assert {"demo-orchestrator", "demo-sandbox-chem", "demo-tenant-chem"} <= space.secrets().keys()

    with older_crd(space):
        space.apply_cr("chem", name="bad", images={"volume": {"size": "many"}})
    wait_for("the refusal", lambda: space.condition("Ready", "bad").get("reason") == "InvalidSpec")
    assert "spec.images.volume.size" in space.condition("Ready", "bad")["message"]
    assert [name for name in space.names("StatefulSet") if name.startswith("bad")] == []

    space.api.request("DELETE", space.path("StatefulSet", "demo-engine"))
    wait_for("the engine to come back", lambda: "demo-engine" in space.names("StatefulSet"))
    space.patch("Service", "demo-engine", {"spec": {"ports": [{"name": "http", "port": 9999, "targetPort": "http"}]}})
    wait_for("the port to be mended", lambda: space.get("Service", "demo-engine")["spec"]["ports"][0]["port"] == 9200)

    assert process.http("/healthz")[0] == 200
    metrics = process.http("/metrics")[1]
    assert 's1vl_operator_deployments{condition="Ready",status="False"} 2.0' in metrics
    assert 's1vl_operator_reconcile_total{result="ok"}' in metrics
    cr = space.cr()
    assert "finalizers" not in cr["metadata"]
    assert "annotations" not in cr["metadata"], "kopf writes nothing"
    assert process.stop() == 0
    loud = [line for line in process.said() if line["level"] not in ("INFO", "WARNING")]
    assert loud == []
    assert not [line for line in process.said() if "orbidden" in line["message"]]


def test_no_write_while_nothing_changes_nor_after_a_restart(space: Space, start: Start) -> None:
    quickstart(space)
    process = start("operator-0")
    wait_for("a status", lambda: space.condition("Progressing").get("reason") == "RolloutInProgress")
    wait_for("the orchestrator", lambda: "demo-orchestrator" in space.names("Deployment"))
    # Everything that it wrote comes back as an event; when those are through, it is at rest.
    settled = rest(process)
    before = space.versions()
    assert sum(settled.values()) > 20
    # The one wait for time to pass: it is the thing measured.
    time.sleep(WATCHED_SECONDS)
    assert process.writes() == settled
    assert process.stop() == 0

    again = start("operator-1")
    wait_for("the second operator to be at work", lambda: 'reconcile_total{result="ok"}' in again.http("/metrics")[1])
    assert rest(again) == {}
    assert space.versions() == before


def rest(process: Process) -> dict[str, float]:
    """The writes, once a whole run has passed without one."""

    def runs() -> float:
        found = re.search(r'reconcile_total\{result="ok"\} (\S+)', process.http("/metrics")[1])
        return float(found.group(1)) if found else 0.0

    def quiet() -> bool:
        writes, ran = process.writes(), runs()
        wait_for("another run", lambda: runs() > ran)
        return process.writes() == writes

    wait_for("a run without a write", quiet, timeout=120)
    return process.writes()


def test_of_two_operators_one_works_and_the_other_takes_over(space: Space, start: Start) -> None:
    first = start("operator-0")
    wait_for("the first to lead", first.leads)
    second = start("operator-1")
    wait_for("the second to stand by", lambda: any("Standing by" in line["message"] for line in second.said()))
    assert second.http("/healthz")[0] == second.http("/readyz")[0] == 200
    assert not second.leads()
    quickstart(space)
    wait_for("the objects", lambda: "demo-orchestrator" in space.names("Deployment"))
    assert not re.search(r"reconcile_total\{", second.http("/metrics")[1])
    assert first.stop() == 0
    wait_for("the second to lead", second.leads, timeout=30)
    space.api.request("DELETE", space.path("Service", "demo-engine"))
    wait_for("the service to come back", lambda: "demo-engine" in space.names("Service"))
    assert second.stop() == 0


def test_an_operator_that_may_not_watch_ends_instead_of_standing_still(
    space: Space, nothing_but_a_lease: None, start: Start
) -> None:
    process = start("operator-0")
    assert process.popen.wait(timeout=120) == 1
    # Not the last line always: kopf's thread may still say something of its own end.
    said = process.said()
    assert any(line["level"] == "ERROR" and "orbidden" in line.get("exc_info", "") for line in said), said
    lease = space.api.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{space.namespace}/leases/s1vl-operator")
    assert not lease["spec"].get("holderIdentity"), "the next one need not wait"
