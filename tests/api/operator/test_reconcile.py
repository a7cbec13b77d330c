"""The reconciliation against a real API server: ownership of fields, defaults, refusals, and what it does not write."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from hack.cluster.api import ApiError as Refused
from s1vl_operator.api.v1alpha1 import parse
from s1vl_operator.cluster.kinds import CHILDREN, EVENT, POD, SECRET
from s1vl_operator.cluster.port import ApiError
from s1vl_operator.desired import desired_state
from s1vl_operator.observe import parse_report
from tests.api.operator.conftest import CONTEXT, Operator, Space, older_crd, wait_for


async def test_everything_is_applied_and_owned_by_one_manager(space: Space, operator: Operator) -> None:
    uid = space.apply_cr("chem", "bio")["metadata"]["uid"]
    await operator.converge()
    assert space.names("Deployment") == ["demo-orchestrator", "demo-sandbox-bio", "demo-sandbox-chem"]
    for manifest in desired_state(parse(space.cr()), CONTEXT):
        found = space.get(manifest["kind"], manifest["metadata"]["name"])
        managers = {(entry["manager"], entry["operation"]) for entry in found["metadata"]["managedFields"]}
        assert ("s1vl-operator", "Apply") in managers, managers
        if manifest["kind"] != "PersistentVolumeClaim":
            assert [owner["uid"] for owner in found["metadata"]["ownerReferences"]] == [uid]
    cr = space.cr()
    owners = {e["manager"]: e.get("subresource", "") for e in cr["metadata"]["managedFields"]}
    assert owners == {"tests": "", "s1vl-operator-status": "status"}
    assert cr["metadata"]["generation"] == 1, "a status is no change of the spec"
    assert cr["status"]["observedGeneration"] == 1
    assert {c["type"] for c in cr["status"]["conditions"]} == {
        "Ready",
        "EngineReady",
        "OrchestratorReady",
        "SandboxesReady",
        "PathsConsistent",
        "Progressing",
        "Reconciling",
    }
    assert space.condition("Progressing")["reason"] == "RolloutInProgress"


async def test_nothing_is_written_while_nothing_changes_not_even_by_a_new_operator(
    space: Space, operator: Operator
) -> None:
    resources = {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"memory": "0.5Gi"}}
    resources["requests"]["memory"] = "512Mi"
    engine = {"resources": resources, "replicas": 2, "shmSize": "20480Mi", "tolerations": [{"operator": "Exists"}]}
    space.apply_cr("chem", "bio", engine=engine, orchestrator={"autoscaling": {"min": 2, "max": 5}})
    await operator.converge()
    before = space.versions()
    assert {"PodDisruptionBudget/demo-engine", "HorizontalPodAutoscaler/demo-orchestrator"} <= before.keys()
    operator.restart()
    for _ in range(3):
        assert await operator.reconcile() == []
        operator.seconds += 700
    assert space.versions() == before


EDITS: list[tuple[str, str, dict[str, Any]]] = [
    ("Service", "demo-engine", {"spec": {"ports": [{"name": "http", "port": 9200, "targetPort": 1}]}}),
    ("Service", "demo-engine", {"spec": {"ports": [{"name": "http", "port": 9999, "targetPort": "http"}]}}),
    ("Service", "demo-engine", {"spec": {"selector": {"broken": "yes"}}}),
    ("StatefulSet", "demo-engine", {"spec": {"replicas": 7}}),
    ("Deployment", "demo-sandbox-chem", {"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}}),
    ("ConfigMap", "demo-orchestrator", {"data": {"config.yaml": "version: 7"}}),
    ("NetworkPolicy", "demo-default-deny", {"spec": {"egress": [{}], "ingress": [{}]}}),
    ("NetworkPolicy", "demo-sandbox", {"spec": {"ingress": [{}]}}),
    ("Role", "demo-orchestrator", {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]}),
    ("Deployment", "demo-orchestrator", {"metadata": {"labels": {"s1vl.io/deployment": None}}}),
    ("Deployment", "demo-orchestrator", {"metadata": {"ownerReferences": []}}),
]


@pytest.mark.parametrize(("kind", "name", "patch"), EDITS)
async def test_an_edit_by_hand_is_mended(
    space: Space, operator: Operator, kind: str, name: str, patch: dict[str, Any]
) -> None:
    space.apply_cr("chem")
    await operator.converge()
    good = space.get(kind, name)
    assert space.patch(kind, name, patch)["metadata"]["resourceVersion"] != good["metadata"]["resourceVersion"]
    await operator.converge()
    now = space.get(kind, name)
    volatile = ("resourceVersion", "managedFields", "generation")
    for found in (good, now):
        for part in volatile:
            found["metadata"].pop(part, None)
    assert now == good
    assert space.condition("Progressing")["reason"] == "RolloutInProgress", "nothing failed"


async def test_what_another_manager_adds_stays(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    await operator.converge()
    annotation = {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
    space.patch("StatefulSet", "demo-engine", {"spec": {"template": {"metadata": {"annotations": annotation}}}})
    space.patch("Service", "demo-orchestrator", {"metadata": {"labels": {"team": "vision"}}})
    assert await operator.reconcile() == []
    space.apply_cr("chem", engine={"replicas": 2})
    await operator.converge()
    assert space.get("StatefulSet", "demo-engine")["spec"]["template"]["metadata"]["annotations"] == annotation
    assert space.get("Service", "demo-orchestrator")["metadata"]["labels"]["team"] == "vision"


async def test_what_is_no_longer_wanted_is_taken_back(space: Space, operator: Operator) -> None:
    space.apply_cr("chem", engine={"env": [{"name": "EXTRA", "value": "1"}], "nodeSelector": {"gpu": "h200"}})
    await operator.converge()
    space.apply_cr("chem", engine={})
    await operator.converge()
    pod = space.get("StatefulSet", "demo-engine")["spec"]["template"]["spec"]
    assert "nodeSelector" not in pod
    assert "EXTRA" not in [variable["name"] for variable in pod["containers"][0]["env"]]


async def test_conflicting_appliers_lose(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    await operator.converge()
    path = space.path("StatefulSet", "demo-engine") + "?fieldManager=other"
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "demo-engine"},
        "spec": {"replicas": 3},
    }
    with pytest.raises(Exception, match="conflict"):
        space.api.request("PATCH", path, manifest, "application/apply-patch+yaml")
    space.api.request("PATCH", path + "&force=true", manifest, "application/apply-patch+yaml")
    await operator.converge()
    assert space.get("StatefulSet", "demo-engine")["spec"]["replicas"] == 1


async def test_a_deleted_object_comes_back(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    await operator.converge()
    for kind in CHILDREN:
        for name in space.names(kind.kind):
            if name.startswith("demo") and kind.kind != "PersistentVolumeClaim":
                space.api.request("DELETE", space.path(kind.kind, name))
    await operator.converge()
    before = {key for key in space.versions() if "demo" in key}
    assert {"StatefulSet/demo-engine", "NetworkPolicy/demo-default-deny", "Role/demo-orchestrator"} <= before


async def test_secrets_are_made_once(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    await operator.converge()
    before = space.secrets()
    data = {key: base64.b64decode(value).decode() for key, value in before["demo-sandbox-chem"]["data"].items()}
    assert data["apiKeySha256"] == hashlib.sha256(data["apiKey"].encode()).hexdigest()
    space.apply_cr("chem", engine={"replicas": 2})
    operator.restart()
    await operator.converge()
    assert space.secrets() == before


async def test_a_left_tenant_is_pruned_and_claims_are_not(space: Space, operator: Operator) -> None:
    space.apply_cr("chem", "bio")
    await operator.converge()
    space.apply_cr("chem")
    await operator.converge()
    left = [key for key in space.versions() if "bio" in key]
    assert left == []
    assert space.names("PersistentVolumeClaim") == ["demo-images", "demo-model-cache"]
    space.apply_cr("chem", networkPolicy={"enabled": False})
    await operator.converge()
    assert space.names("NetworkPolicy") == []


async def test_a_refusal_is_a_condition_with_the_servers_words(space: Space, operator: Operator) -> None:
    quota = f"/api/v1/namespaces/{space.namespace}/resourcequotas"
    hard = {"count/services": "1"}
    made = space.api.request("POST", quota, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    space.api.request("PUT", f"{quota}/q/status", {**made, "status": {"hard": hard, "used": hard}})
    probe = {"metadata": {"generateName": "probe-"}, "spec": {"ports": [{"port": 80}]}}
    wait_for("the quota to be known", lambda: refused(space, f"{space.path('Service')}?dryRun=All", probe))
    space.apply_cr("chem")
    await operator.converge()
    ready = space.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ApplyFailed")
    assert ready["message"].startswith("Service demo-engine-pods: ")
    assert "quota" in ready["message"]
    assert "demo-engine" in space.names("StatefulSet")
    assert await operator.reconcile() == []
    space.api.request("DELETE", f"{quota}/q")
    operator.seconds += 61
    await operator.converge()
    assert space.condition("Progressing")["reason"] == "RolloutInProgress"


def refused(space: Space, path: str, body: dict[str, Any]) -> bool:
    try:
        space.api.request("POST", path, body)
    except Refused as error:
        return error.status == 403
    return False


async def test_an_invalid_resource_beside_a_good_one(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    with older_crd(space):
        space.apply_cr("chem", name="bad", engine={"gpus": 3})
    await operator.converge()
    await operator.converge("bad")
    bad = space.condition("Ready", "bad")
    assert (bad["status"], bad["reason"]) == ("False", "InvalidSpec")
    assert "spec.engine.gpus" in bad["message"]
    assert space.condition("Progressing")["reason"] == "RolloutInProgress"
    assert not [key for key in space.versions() if "/bad-" in key]


async def test_a_pod_template_that_is_no_pod_template_is_a_condition(space: Space, operator: Operator) -> None:
    space.apply_cr("chem", engine={"podTemplate": {"spec": {"dnsPolicy": ["x"]}}})
    await operator.converge()
    ready = space.condition("Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ApplyFailed")
    assert "dnsPolicy" in ready["message"]
    assert await operator.reconcile() == [], "not sent again at once"


async def test_events_are_found_by_kubectl_describe(space: Space, operator: Operator) -> None:
    space.apply_cr("chem")
    await operator.converge()
    events = space.events()
    assert {"Applied", "RolloutInProgress"} <= {event["reason"] for event in events}
    assert len(space.events()) == len(events)
    count = len(events)
    await operator.converge()
    assert len(space.events()) == count


async def test_events_say_why_a_pod_is_missing_until_one_says_that_it_is_over(space: Space, operator: Operator) -> None:
    text = 'create Pod demo-engine-0 failed: pods "demo-engine-0" is forbidden: exceeded quota: gpus'
    space.apply_cr("chem")
    await operator.converge()
    uid = space.get("StatefulSet", "demo-engine")["metadata"]["uid"]

    def post(kind: str, reason: str, time: str, uid: str) -> None:
        about = {"kind": "StatefulSet", "name": "demo-engine", "namespace": space.namespace, "uid": uid}
        event = {
            "metadata": {"generateName": "e-"},
            "involvedObject": {**about, "apiVersion": "apps/v1"},
            "type": kind,
            "reason": reason,
            "message": text,
            "lastTimestamp": time,
        }
        space.api.request("POST", f"/api/v1/namespaces/{space.namespace}/events", event)

    post("Warning", "FailedCreate", "2026-01-01T00:00:02Z", "its-predecessors")
    await operator.converge()
    assert space.condition("EngineReady")["reason"] == "EngineStarting"

    post("Normal", "SuccessfulCreate", "2026-01-01T00:00:00Z", uid)
    post("Warning", "FailedCreate", "2026-01-01T00:00:01Z", uid)
    found = await operator.cluster.list(EVENT, space.namespace, fields="type=Warning", limit=500)
    about_pods = [event["reason"] for event in found if event["regarding"]["kind"] == "StatefulSet"]
    assert about_pods == ["FailedCreate", "FailedCreate"]
    await operator.converge()
    engine = space.condition("EngineReady")
    assert engine["reason"] == "QuotaExceeded"
    assert "exceeded quota: gpus" in engine["message"]

    post("Normal", "SuccessfulCreate", "2026-01-01T00:00:02Z", uid)
    await operator.converge()
    assert space.condition("EngineReady")["reason"] == "EngineStarting"


async def test_the_client_deletes_only_what_it_saw(space: Space, operator: Operator) -> None:
    path = f"/api/v1/namespaces/{space.namespace}/secrets"
    uid = space.api.request("POST", path, {"metadata": {"name": "s"}})["metadata"]["uid"]
    with pytest.raises(ApiError) as refused:
        await operator.cluster.delete(SECRET, space.namespace, "s", "another-uid")
    assert refused.value.status == 409
    await operator.cluster.delete(SECRET, space.namespace, "s", uid)
    await operator.cluster.delete(SECRET, space.namespace, "s", uid)
    assert await operator.cluster.read(SECRET, space.namespace, "s") is None
    assert await operator.cluster.list(POD, space.namespace) == []


async def test_a_status_is_not_written_to_a_namesake_nor_to_another_version(space: Space, operator: Operator) -> None:
    cr = space.apply_cr("chem")
    space.api.request("DELETE", space.path("S1VLDeployment", "demo"))
    space.apply_cr("chem")
    only = {key: cr["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    status = {"apiVersion": cr["apiVersion"], "kind": cr["kind"], "metadata": only, "status": {"engine": "1/1"}}
    with pytest.raises(ApiError) as conflict:
        await operator.cluster.apply_status(status)
    assert conflict.value.status == 409
    assert space.cr()["status"] == {"observedGeneration": -1}


async def test_all_of_it_ready(space: Space, operator: Operator) -> None:
    """The tests play the controllers, the kubelet and the orchestrator."""
    space.apply_cr("chem")
    await operator.converge()
    for kind, name in (
        ("StatefulSet", "demo-engine"),
        ("Deployment", "demo-sandbox-chem"),
        ("Deployment", "demo-orchestrator"),
    ):
        run(space, space.get(kind, name))
    text = space.get("ConfigMap", "demo-orchestrator")["data"]["config.yaml"]
    tenant = {
        "name": "chem",
        "ready": True,
        "reason": "Ready",
        "message": "",
        "paths": {"consistent": True, "reason": "PathsConsistent", "message": "", "checkedAt": None},
        "jobsRunning": 0,
    }
    version = hashlib.sha256(text.encode()).hexdigest()
    answer = {"configVersion": version, "engine": {"ready": True, "message": ""}, "tenants": [tenant]}
    operator.reports = [parse_report("demo-orchestrator-0", answer)]
    await operator.converge()
    ready = space.condition("Ready")
    assert (ready["status"], ready["reason"], ready["observedGeneration"]) == ("True", "AllReady", 1)
    status = space.cr()["status"]
    assert (status["replicas"], status["engine"], status["tenantsReady"]) == (1, "1/1", "1/1")
    scale = space.api.request("GET", space.path("S1VLDeployment", "demo", "scale"))
    assert (scale["status"]["replicas"], scale["status"]["selector"]) == (1, status["selector"])
    operator.restart()
    before = space.versions()
    assert await operator.reconcile() == []
    assert space.versions() == before


def run(space: Space, workload: dict[str, Any]) -> None:
    """Give a workload its ready pod."""
    name, template = workload["metadata"]["name"], workload["spec"]["template"]
    path = f"/api/v1/namespaces/{space.namespace}/pods"
    metadata = {"name": f"{name}-0", "labels": template["metadata"]["labels"]}
    pod = space.api.request("POST", path, {"metadata": metadata, "spec": template["spec"]})
    ready = {"type": "Ready", "status": "True"}
    space.api.request("PUT", f"{path}/{name}-0/status", {**pod, "status": {"phase": "Running", "conditions": [ready]}})
    count = dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), 1)
    status = {"observedGeneration": workload["metadata"]["generation"], **count}
    space.patch(workload["kind"], name, {"status": status}, "status")
