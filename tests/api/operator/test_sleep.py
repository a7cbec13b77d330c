"""Leases before a real API server: made by the operator, renewed by the orchestrator with no rights but that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from s1vl_operator.cluster.client import KubernetesCluster
from s1vl_operator.cluster.port import ApiError
from tests.api.operator.conftest import Operator, Space, token_kubeconfig

IDLE = {"idleTimeoutSeconds": 300}


def lease(space: Space, name: str, renewed: datetime) -> dict[str, Any]:
    spec = {"renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "holderIdentity": "demo-orchestrator-x"}
    metadata = {"name": name, "namespace": space.namespace}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


@pytest.fixture
async def orchestrator(
    space: Space, operator: Operator, kubeconfig: str, tmp_path: Path
) -> AsyncIterator[KubernetesCluster]:
    """The cluster with the rights of an orchestrator of three tenants whose sandboxes sleep."""
    space.apply_cr("chem", "bio", "phy", sandbox=IDLE)
    await operator.converge()
    account = f"/api/v1/namespaces/{space.namespace}/serviceaccounts/demo-orchestrator/token"
    token = space.api.request("POST", account, {"spec": {"expirationSeconds": 3600}})["status"]["token"]
    file = tmp_path / "orchestrator"
    file.write_text(token_kubeconfig(kubeconfig, token))
    cluster = await KubernetesCluster.connect(kubeconfig=str(file))
    yield cluster
    await cluster.close()


async def test_the_orchestrator_renews_and_the_operator_goes_by_it(
    space: Space, operator: Operator, orchestrator: KubernetesCluster
) -> None:
    assert space.names("Lease") == ["demo-tenant-bio", "demo-tenant-chem", "demo-tenant-phy"]
    now = datetime.now(UTC)
    await orchestrator.merge(lease(space, "demo-tenant-chem", now + timedelta(seconds=200)))
    assert await operator.reconcile() == [], "what is in it is nothing of the operator's"
    operator.reconciler.now = lambda: now + timedelta(seconds=400)
    await operator.converge()

    def replicas() -> list[int]:
        found = (space.get("Deployment", f"demo-sandbox-{tenant}") for tenant in ("chem", "bio", "phy"))
        return [one["spec"]["replicas"] for one in found]

    assert replicas() == [1, 0, 0]
    before = space.versions()
    operator.restart()
    operator.reconciler.now = lambda: now + timedelta(seconds=401)
    assert await operator.reconcile() == []
    assert space.versions() == before

    await orchestrator.merge(lease(space, "demo-tenant-bio", now + timedelta(seconds=402)))
    assert (await operator.reconcile())[0] == ("apply", "deployments", 200)
    assert replicas() == [1, 1, 0]
    assert space.get("Lease", "demo-tenant-bio")["spec"]["holderIdentity"] == "demo-orchestrator-x"

    space.apply_cr({"name": "chem", "sandbox": {"idleTimeoutSeconds": 0}}, "bio", sandbox=IDLE)
    await operator.converge()
    assert space.names("Lease") == ["demo-tenant-bio"]
    with pytest.raises(ApiError) as refused:
        await orchestrator.merge(lease(space, "demo-tenant-chem", now))
    assert refused.value.status == 403
