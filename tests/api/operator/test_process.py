"""The real process, as the chart runs it: with the chart's rights and no others."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.operator.conftest import Space, older_crd, wait_for
from tests.api.operator.running import RBAC, Start, quickstart, rest, starter

WATCHED_SECONDS = 45
"""Longer than the 30 s after which the operator looks again by itself."""


@pytest.fixture
def start(space: Space, kubeconfig: str, tmp_path: Path) -> Iterator[Start]:
    with starter(space, kubeconfig, tmp_path) as start:
        yield start


@pytest.fixture
def nothing_but_a_lease(space: Space, start: Start) -> None:
    """Take away the rights on everything but the Lease and the look at the API server's addresses."""
    del start
    path = f"{RBAC}/namespaces/{space.namespace}/roles/operator-{space.namespace}"
    role = space.api.request("GET", path)
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] == ["leases"]]
    space.api.request("PUT", path, role)


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
