"""Autoscalers come and go with the spec and with what the cluster offers."""

from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator.cluster.port import ApiError
from tests.component.operator.conftest import World

BY_HPA: dict[str, Any] = {"max": 4, "waitingRequestsPerReplica": 5, "prometheusAddress": "http://prometheus:9090"}
BY_KEDA = {**BY_HPA, "provider": "keda"}


async def test_without_keda_the_engine_serves_and_the_status_says_what_is_missing(world: World) -> None:
    world.cr("chem", engine={"autoscaling": BY_KEDA})
    await world.converge()
    assert world.condition("Ready")[0] == "True"
    status, reason, message = world.condition("Progressing")
    assert (status, reason) == ("False", "AutoscalerMissing")
    assert "keda.sh/v1alpha1" in message
    assert world.said().count(("Warning", "AutoscalerMissing")) == 1
    world.seconds += 700
    assert await world.reconcile() == [], "no loop"

    world.cluster.keda = True
    await world.converge()
    assert world.cluster.names("ScaledObject") == ["demo-engine"]
    assert world.condition("Progressing")[1] == "Stable"
    assert await world.reconcile() == []


async def test_of_two_autoscalers_the_old_one_goes_before_the_new_one_comes(world: World) -> None:
    world.cluster.keda = True
    world.cr("chem", engine={"autoscaling": BY_HPA})
    await world.converge()
    assert world.cluster.names("HorizontalPodAutoscaler") == ["demo-engine"]

    def refuse(verb: str, manifest: dict[str, Any]) -> ApiError | None:
        """As KEDA's webhook does."""
        second = verb == "apply" and manifest["kind"] == "ScaledObject"
        if second and world.cluster.names("HorizontalPodAutoscaler"):
            return ApiError(403, "Forbidden", "the workload is already managed by the hpa demo-engine")
        return None

    world.cluster.refuse = refuse
    world.cr("chem", engine={"autoscaling": BY_KEDA})
    writes = await world.reconcile()
    assert [write for write in writes if write[1] in ("ScaledObject", "HorizontalPodAutoscaler")] == [
        ("delete", "HorizontalPodAutoscaler", "demo-engine"),
        ("apply", "ScaledObject", "demo-engine"),
    ]
    assert ("Normal", "Pruned") in world.said()
    world.cr("chem")
    await world.converge()
    assert world.cluster.names("ScaledObject") == []


async def test_an_autoscaler_that_keda_makes_is_kedas(world: World) -> None:
    """KEDA gives its own autoscaler the ScaledObject's labels."""
    world.cluster.keda = True
    world.cr("chem", engine={"autoscaling": BY_KEDA})
    await world.converge()
    scaled = world.cluster.get("ScaledObject", "demo-engine")["metadata"]
    owner = {"kind": "ScaledObject", "name": "demo-engine", "uid": scaled["uid"], "controller": True}
    metadata = {"name": "keda-hpa-demo-engine", "namespace": "n", "labels": scaled["labels"]}
    hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    world.cluster.put({**hpa, "metadata": {**metadata, "ownerReferences": [owner]}})
    assert await world.reconcile() == []
    assert world.cluster.names("HorizontalPodAutoscaler") == ["keda-hpa-demo-engine"]


@pytest.mark.parametrize("error", [ApiError(404, "NotFound", "gone"), ApiError(403, "Forbidden", "no rights")])
async def test_keda_that_cannot_be_listed_stops_nobody(
    world: World, error: ApiError, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.cluster.keda = True
    listed = world.cluster.list

    async def refuse(kind: Any, *args: Any, **kwargs: Any) -> Any:
        if kind.kind == "ScaledObject":
            raise error
        return await listed(kind, *args, **kwargs)

    monkeypatch.setattr(world.cluster, "list", refuse)
    world.cr("chem")
    await world.converge()
    assert world.condition("Ready")[0] == "True"


async def test_the_engine_follows_what_an_autoscaler_writes_to_the_custom_resource(world: World) -> None:
    world.cr("chem", engine={"autoscaling": BY_HPA})
    await world.converge()
    for replicas in (3, 1):
        world.cr("chem", engine={"autoscaling": BY_HPA, "replicas": replicas})
        await world.converge()
        assert world.cluster.get("StatefulSet", "demo-engine")["spec"]["replicas"] == replicas
