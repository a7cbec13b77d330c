"""Changes that cannot be made in place, restarts and deletion, on a real API server."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from s1vl_operator.cluster.client import KubernetesCluster
from s1vl_operator.cluster.kinds import CHILDREN, CLAIM
from s1vl_operator.cluster.port import ApiError
from tests.api.operator.conftest import Operator, Space, objects

RESTARTED = "kubectl.kubernetes.io/restartedAt"


def pods_path(space: Space, name: str = "") -> str:
    return f"/api/v1/namespaces/{space.namespace}/pods" + (f"/{name}" if name else "")


def give_pod(space: Space, workload: dict[str, Any], name: str) -> dict[str, Any]:
    """A pod of a workload, as its controller makes it."""
    metadata, template = workload["metadata"], workload["spec"]["template"]
    owner = {"apiVersion": "apps/v1", "kind": workload["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    body = {
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": template["spec"],
    }
    return space.api.request("POST", pods_path(space), body)


def collect_orphans(space: Space, kind: str, name: str) -> None:
    """What the garbage collector does with an object that was deleted with its dependents to stay."""
    found = space.get(kind, name)
    assert found["metadata"]["finalizers"] == ["orphan"]
    uid = found["metadata"]["uid"]
    for pod in space.api.request("GET", pods_path(space))["items"]:
        owners = pod["metadata"].get("ownerReferences", [])
        pod["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
        if owners != pod["metadata"]["ownerReferences"]:
            space.api.request("PUT", pods_path(space, pod["metadata"]["name"]), pod)
    space.patch(kind, name, {"metadata": {"finalizers": []}})


def remake(space: Space, kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """Make an object as an older operator might have: of the operator's own labels and owner, in another shape."""
    found = space.get(kind, name)
    space.api.request("DELETE", space.path(kind, name), {"propagationPolicy": "Background"})
    metadata = {key: found["metadata"][key] for key in ("name", "labels", "ownerReferences")}
    body = {"apiVersion": found["apiVersion"], "kind": kind, "metadata": metadata, "spec": {**found["spec"], **spec}}
    return space.api.request("POST", space.path(kind), body)


@pytest.mark.parametrize(
    ("field", "value"), [("serviceName", "older"), ("podManagementPolicy", "OrderedReady")], ids=str
)
async def test_a_stateful_set_of_another_shape_is_replaced_and_its_pods_go_on(
    space: Space, operator: Operator, field: str, value: str
) -> None:
    uid = space.apply_cr("chem")["metadata"]["uid"]
    await operator.converge()
    good = space.get("StatefulSet", "demo-engine")["spec"][field]
    old = remake(space, "StatefulSet", "demo-engine", **{field: value})
    pod = give_pod(space, old, "demo-engine-0")

    await operator.reconcile()
    assert space.get("StatefulSet", "demo-engine")["metadata"]["deletionTimestamp"]
    progressing = space.condition("Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "Reconciling")
    owners = space.api.request("GET", pods_path(space, "demo-engine-0"))["metadata"]["ownerReferences"]
    assert {owner["uid"] for owner in owners} == {old["metadata"]["uid"], uid}, "not left behind if that is deleted now"
    assert "Replaced" in {event["reason"] for event in space.events()}
    assert objects(await operator.reconcile()) == [], "it waits"

    collect_orphans(space, "StatefulSet", "demo-engine")
    await operator.converge()
    new = space.get("StatefulSet", "demo-engine")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["spec"][field] == good
    kept = space.api.request("GET", pods_path(space, "demo-engine-0"))["metadata"]
    assert kept["uid"] == pod["metadata"]["uid"]
    assert new["spec"]["selector"]["matchLabels"].items() <= kept["labels"].items()
    assert space.condition("Progressing")["reason"] == "RolloutInProgress"
    assert await operator.reconcile() == []


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
async def test_a_workload_whose_pods_would_be_lost_is_left_to_people_and_not_asked_about_in_a_loop(
    space: Space, operator: Operator, kind: str
) -> None:
    space.apply_cr("chem")
    await operator.converge()
    name = {"StatefulSet": "demo-engine", "Deployment": "demo-orchestrator"}[kind]
    labels = {"older": "yes"}
    template = space.get(kind, name)["spec"]["template"]
    template["metadata"]["labels"] = labels
    old = remake(space, kind, name, selector={"matchLabels": labels}, template=template)
    await operator.reconcile()
    ready = space.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ImmutableField")
    assert name in ready["message"]
    for _ in range(5):
        operator.seconds += 10
        assert objects(await operator.reconcile()) == []
    operator.seconds += 15
    assert [(verb, status) for verb, _, status in objects(await operator.reconcile())] == [("apply", 422)]
    assert space.get(kind, name)["metadata"]["uid"] == old["metadata"]["uid"]

    space.api.request("DELETE", space.path(kind, name), {"propagationPolicy": "Background"})
    await operator.converge()
    assert space.condition("Progressing")["reason"] == "RolloutInProgress"


async def test_a_service_and_a_role_binding_of_another_shape_are_replaced_at_once(
    space: Space, operator: Operator
) -> None:
    space.apply_cr("chem")
    await operator.converge()
    service = space.get("Service", "demo-engine-pods")
    spec = {key: value for key, value in service["spec"].items() if not key.startswith("cluster")}
    space.api.request("DELETE", space.path("Service", "demo-engine-pods"))
    metadata = {key: service["metadata"][key] for key in ("name", "labels", "ownerReferences")}
    space.api.request("POST", space.path("Service"), {"metadata": metadata, "spec": spec})
    binding = space.get("RoleBinding", "demo-orchestrator")
    space.api.request("DELETE", space.path("RoleBinding", "demo-orchestrator"))
    for part in ("resourceVersion", "uid", "managedFields", "creationTimestamp"):
        binding["metadata"].pop(part)
    space.api.request(
        "POST", space.path("RoleBinding"), {**binding, "roleRef": {**binding["roleRef"], "name": "older"}}
    )

    await operator.reconcile()
    assert space.get("Service", "demo-engine-pods")["spec"]["clusterIP"] == "None"
    assert space.get("RoleBinding", "demo-orchestrator")["roleRef"]["name"] == "demo-orchestrator"
    assert space.condition("Progressing")["reason"] == "RolloutInProgress", "nothing failed"
    await operator.converge()


async def test_what_something_else_keeps_making_as_it_was_is_replaced_once_in_ten_minutes(
    space: Space, operator: Operator
) -> None:
    space.apply_cr("chem")
    await operator.converge()
    seen = set()
    for _ in range(4):
        binding = space.get("RoleBinding", "demo-orchestrator")
        if binding["roleRef"]["name"] == "demo-orchestrator":
            space.api.request("DELETE", space.path("RoleBinding", "demo-orchestrator"))
            for part in ("resourceVersion", "uid", "managedFields", "creationTimestamp"):
                binding["metadata"].pop(part)
            again = {**binding, "roleRef": {**binding["roleRef"], "name": "older"}}
            binding = space.api.request("POST", space.path("RoleBinding"), again)
        seen.add(binding["metadata"]["uid"])
        await operator.reconcile()
    assert len(seen) == 2
    assert space.condition("Ready")["reason"] == "ImmutableField"
    operator.seconds += 601
    await operator.converge()
    assert space.get("RoleBinding", "demo-orchestrator")["roleRef"]["name"] == "demo-orchestrator"


async def test_the_annotation_restarts_all_pods_without_a_new_generation(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    await operator.converge()
    before = space.cr()["metadata"]["generation"]
    space.patch("S1VLDeployment", "demo", {"metadata": {"annotations": {"s1vl.io/restartedAt": "before lunch"}}})
    await operator.converge()
    assert space.cr()["metadata"]["generation"] == before
    for workload in workloads(space):
        annotations = workload["spec"]["template"]["metadata"]["annotations"]
        assert annotations["s1vl.io/restartedAt"] == "before lunch", workload["metadata"]["name"]
        assert workload["metadata"]["generation"] == 2


async def test_a_restart_of_one_workload_by_kubectl_is_not_undone(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    await operator.converge()
    for workload in workloads(space):
        kind, name = workload["kind"], workload["metadata"]["name"]
        annotations = {RESTARTED: f"2026-01-01T00:00:00Z {name}"}
        space.patch(kind, name, {"spec": {"template": {"metadata": {"annotations": annotations}}}})
    assert await operator.reconcile() == []
    operator.restart()
    assert await operator.reconcile() == []
    # Whatever else changes, and whoever restarts them all.
    space.patch("S1VLDeployment", "demo", {"metadata": {"annotations": {"s1vl.io/restartedAt": "1"}}})
    space.apply_cr("chem", engine={"port": 9300}, sandbox={"port": 9301}, orchestrator={"port": 9302})
    await operator.converge()
    for workload in workloads(space):
        annotations = workload["spec"]["template"]["metadata"]["annotations"]
        assert annotations[RESTARTED] == f"2026-01-01T00:00:00Z {workload['metadata']['name']}"
        assert annotations["s1vl.io/restartedAt"] == "1"


def workloads(space: Space) -> list[dict[str, Any]]:
    """All StatefulSets and Deployments of the namespace."""
    found = [space.get(kind, name) for kind in ("StatefulSet", "Deployment") for name in space.names(kind)]
    assert len(found) == 3
    return found


async def test_deleted_at_any_moment_everything_has_the_deleted_owner(space: Space, kubeconfig: str) -> None:
    """So that the garbage collector, which does not run here, takes what was made after the deletion too."""
    requests: list[tuple[str, str, int]] = []
    deletions: dict[int, str] = {}

    def count(verb: str, resource: str, status: int) -> None:
        requests.append((verb, resource, status))
        if name := deletions.pop(len(requests), None):
            space.api.request("DELETE", space.path("S1VLDeployment", name))

    async with contextlib.AsyncExitStack() as stack:
        cluster = await KubernetesCluster.connect(count, kubeconfig=kubeconfig)
        stack.push_async_callback(cluster.close)
        operator = Operator(space, cluster, requests)
        space.apply_cr("chem", "bio", name="whole")
        await operator.reconcile("whole")
        written = [i for i, (verb, _, _) in enumerate(requests, 1) if verb in ("create", "apply")]
        # Before anything, among the Secrets, the claims, each component, and just before the status is written.
        for at in (1, *written[:-1:4]):
            name = f"gone{at}"
            uid = space.apply_cr("chem", "bio", name=name)["metadata"]["uid"]
            requests.clear()
            deletions[at] = name
            with contextlib.suppress(ApiError):
                await operator.reconcile(name)
            assert not deletions
            assert await operator.reconcile(name) == []
            left = [one for kind in CHILDREN if kind != CLAIM for one in of(space, kind.kind, name)]
            left += [secret for key, secret in space.secrets().items() if key.startswith(f"{name}-")]
            assert len(left) > 20, "it did not know that the resource was gone"
            assert {tuple(o["uid"] for o in one["metadata"]["ownerReferences"]) for one in left} == {(uid,)}


def of(space: Space, kind: str, name: str) -> list[dict[str, Any]]:
    """The objects of a kind that belong to a deployment."""
    found = space.api.request("GET", f"{space.path(kind)}?labelSelector=s1vl.io/deployment={name}")
    items: list[dict[str, Any]] = found["items"]
    return items
