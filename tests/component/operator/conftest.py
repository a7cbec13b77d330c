"""One operator over a cluster in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s1vl_operator.cluster.apply import Applier
from s1vl_operator.desired import Context
from s1vl_operator.reconcile import Reconciler
from s1vl_operator.telemetry import Metrics
from tests.component.operator.fake import FakeCluster, FakeHealth, FakeProbe

CONTEXT = Context(
    control_image="s1vl:test",
    sandbox_image="s1vl-sandbox:test",
    engine_image="vllm/vllm-openai:v0.11.2",
    image_pull_policy="IfNotPresent",
    operator_namespace="s1vl-system",
    api_server_cidrs=(("10.0.0.1/32", 6443),),
)


@dataclass
class World:
    """The cluster, the operator, and the passing of time."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    seconds: float = 0.0
    health: FakeHealth = field(default_factory=FakeHealth)
    probe: FakeProbe = field(init=False)
    reconciler: Reconciler = field(init=False)

    def __post_init__(self) -> None:
        self.probe = FakeProbe(self.cluster)
        self.cluster.now = lambda: self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        self.restart()

    def restart(self) -> None:
        """A new operator that knows nothing but what the cluster says."""
        self.reconciler = Reconciler(
            cluster=self.cluster,
            applier=Applier(self.cluster, lambda: self.seconds),
            probe=self.probe,
            health=self.health,
            context=lambda: replace(CONTEXT, keda=self.cluster.keda),
            metrics=Metrics(),
            instance="operator-0",
            now=self.now,
        )

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def ask(self, tenant: str) -> None:
        """Renew a tenant's Lease, as the orchestrator does for a request."""
        lease = self.cluster.get("Lease", f"demo-tenant-{tenant}")
        renewed = self.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.cluster.put({**lease, "spec": {"renewTime": renewed, "holderIdentity": "demo-orchestrator-0"}})

    def cr(self, *tenants: str | dict[str, Any], name: str = "demo", **spec: Any) -> dict[str, Any]:
        """Create or change a custom resource, as a person does."""
        listed = [t if isinstance(t, dict) else {"name": t} for t in tenants or ("chem",)]
        found = self.cluster.objects.get(("S1VLDeployment", "n", name))
        metadata = dict(found["metadata"]) if found else {"name": name, "namespace": "n"}
        manifest = {"apiVersion": "s1vl.io/v1alpha1", "kind": "S1VLDeployment", "metadata": metadata}
        status = {"status": found["status"]} if found and "status" in found else {}
        return self.cluster.put({**manifest, "spec": {"tenants": listed, **spec}, **status})

    async def reconcile(self, name: str = "demo") -> list[tuple[str, str, str]]:
        """One run; returns its write requests."""
        before = len(self.cluster.writes)
        self.again = await self.reconciler(("n", name))
        return self.cluster.writes[before:]

    async def converge(self, name: str = "demo") -> None:
        """Run until nothing is written any more, with workloads that get ready."""
        for _ in range(10):
            self.cluster.run_workloads()
            if not await self.reconcile(name):
                return
        raise AssertionError(f"still writing after 10 runs: {self.cluster.writes[-20:]}")

    def status(self, name: str = "demo") -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get("S1VLDeployment", name)["status"]
        return found

    def condition(self, kind: str, name: str = "demo") -> tuple[str, str, str]:
        """(status, reason, message) of a condition."""
        found = {c["type"]: c for c in self.status(name)["conditions"]}[kind]
        return found["status"], found["reason"], found["message"]

    def said(self) -> list[tuple[str, str]]:
        """(type, reason) of all events so far."""
        return [(event["type"], event["reason"]) for event in self.cluster.events]


@pytest.fixture
def world() -> World:
    return World()
