"""Who has the number of pods, on a real API server; no autoscaler runs here: these tests play them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from s1vl_operator.cluster.kinds import SCALED_OBJECT
from tests.api.operator.conftest import CONTEXT, Operator, Space, objects, wait_for


async def test_an_autoscaler_takes_the_number_of_orchestrators_over_as_it_is(space: Space, operator: Operator) -> None:
    space.apply_cr("chem", orchestrator={"replicas": 4})
    await operator.converge()
    before = space.get("Deployment", "demo-orchestrator")["metadata"]["resourceVersion"]
    space.apply_cr("chem", orchestrator={"autoscaling": {"min": 2, "max": 8}})
    await operator.converge()
    versions = history(space, "demo-orchestrator", before)
    assert len(versions) > 0
    assert {one["spec"]["replicas"] for one in versions} == {4}, "not for a moment"

    # As the autoscaler does it.
    scale = space.api.request("GET", space.path("Deployment", "demo-orchestrator", "scale"))
    scale["spec"]["replicas"] = 6
    space.api.request("PUT", space.path("Deployment", "demo-orchestrator", "scale"), scale)
    assert objects(await operator.reconcile()) == []
    space.apply_cr("chem", orchestrator={"autoscaling": {"min": 2, "max": 8}, "port": 8000})
    await operator.converge()
    assert space.get("Deployment", "demo-orchestrator")["spec"]["replicas"] == 6

    space.apply_cr("chem", orchestrator={"replicas": 3})
    await operator.converge()
    assert space.get("Deployment", "demo-orchestrator")["spec"]["replicas"] == 3
    assert space.names("HorizontalPodAutoscaler") == []
    space.apply_cr("chem", orchestrator={"autoscaling": {"min": 2, "max": 8}})
    await operator.converge()
    assert space.get("Deployment", "demo-orchestrator")["spec"]["replicas"] == 3, "the second time too"


def history(space: Space, deployment: str, since: str) -> list[dict[str, Any]]:
    """Every version of a Deployment from one of its versions to the present one."""
    now = space.get("Deployment", deployment)["metadata"]["resourceVersion"]
    query = f"watch=true&resourceVersion={since}&fieldSelector=metadata.name={deployment}"
    versions = []
    for event in space.api.watch(f"{space.path('Deployment')}?{query}", 60):
        versions.append(event["object"])
        if event["object"]["metadata"]["resourceVersion"] == now:
            break
    return versions


async def test_kubectl_scale_is_followed(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    await operator.converge()
    for wanted in (3, 0, 1):
        space.patch("S1VLDeployment", "demo", {"spec": {"replicas": wanted}}, "scale")
        await operator.converge()
        assert space.get("StatefulSet", "demo-engine")["spec"]["replicas"] == wanted
        scale = space.api.request("GET", space.path("S1VLDeployment", "demo", "scale"))
        assert scale["spec"].get("replicas", 0) == wanted


async def test_engine_autoscaler_points_at_the_custom_resource(space: Space, operator: Operator) -> None:
    space.apply_cr("chem", engine={"autoscaling": {"max": 3, "waitingRequestsPerReplica": 5}})
    await operator.converge()
    target = space.get("HorizontalPodAutoscaler", "demo-engine")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("S1VLDeployment", "demo")
    operator.restart()
    assert await operator.reconcile() == []


@pytest.fixture
def keda(space: Space) -> Iterator[None]:
    """The cluster serves KEDA's ScaledObject, without KEDA behind it."""
    target = {"type": "object", "required": ["name"], "properties": dict.fromkeys(("apiVersion", "kind", "name"), TEXT)}
    parts = {"type": TEXT, "metricType": TEXT, "metadata": {"type": "object", "additionalProperties": TEXT}}
    trigger = {"type": "object", "required": ["type", "metadata"], "properties": parts}
    counts = {key: {"type": "integer"} for key in ("minReplicaCount", "maxReplicaCount")}
    fields = {"scaleTargetRef": target, "triggers": {"type": "array", "items": trigger}, **counts}
    spec = {"type": "object", "required": ["scaleTargetRef", "triggers"], "properties": fields}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    name = f"{SCALED_OBJECT.plural}.{SCALED_OBJECT.group}"
    body = {
        "metadata": {"name": name},
        "spec": {
            "group": SCALED_OBJECT.group,
            "scope": "Namespaced",
            "names": {"kind": SCALED_OBJECT.kind, "plural": SCALED_OBJECT.plural},
            "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": schema}],
        },
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    space.api.request("POST", path, body)
    wait_for("KEDA's API", lambda: "items" in space.api.request("GET", SCALED_OBJECT.path(space.namespace)))
    yield
    space.api.request("DELETE", f"{path}/{name}")


TEXT = {"type": "string"}


async def test_kedas_object_is_made_where_keda_is(space: Space, operator: Operator, keda: None) -> None:
    def named() -> list[str]:
        found = space.api.request("GET", SCALED_OBJECT.path(space.namespace))["items"]
        return [one["metadata"]["name"] for one in found]

    assert await operator.cluster.served(SCALED_OBJECT.api_version, SCALED_OBJECT.plural)
    assert not await operator.cluster.served("keda.sh/v1alpha1", "more")
    assert not await operator.cluster.served("keda.sh/v2", SCALED_OBJECT.plural)
    operator.reconciler.context = lambda: replace(CONTEXT, keda=True)
    scaling = {"max": 3, "waitingRequestsPerReplica": 5, "prometheusAddress": "http://prometheus:9090"}
    space.apply_cr("chem", engine={"autoscaling": {**scaling, "provider": "keda"}})
    await operator.converge()
    assert named() == ["demo-engine"]
    assert space.names("HorizontalPodAutoscaler") == []
    assert await operator.reconcile() == []
    space.apply_cr("chem", engine={"autoscaling": scaling})
    await operator.converge()
    assert named() == []
    assert space.names("HorizontalPodAutoscaler") == ["demo-engine"]
    assert await operator.reconcile() == []
