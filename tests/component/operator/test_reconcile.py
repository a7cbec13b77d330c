"""The whole reconciliation against a cluster in memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from s1vl_operator.cluster.port import ApiError
from tests.component.operator.conftest import World
from tests.component.operator.fake import pod


async def test_one_custom_resource_becomes_everything(world: World) -> None:
    world.cr("chem", "bio")
    await world.converge()
    assert world.cluster.names("StatefulSet") == ["demo-engine"]
    assert world.cluster.names("Deployment") == ["demo-orchestrator", "demo-sandbox-bio", "demo-sandbox-chem"]
    assert world.cluster.names("PersistentVolumeClaim") == ["demo-images", "demo-model-cache"]
    assert world.cluster.names("Secret") == [
        "demo-orchestrator",
        "demo-sandbox-bio",
        "demo-sandbox-chem",
        "demo-tenant-bio",
        "demo-tenant-chem",
    ]
    assert world.condition("Ready")[:2] == ("True", "AllReady")
    status = world.status()
    assert (status["observedGeneration"], status["replicas"], status["engine"]) == (1, 1, "1/1")
    assert [(t["name"], t["ready"], t["reason"]) for t in status["tenants"]] == [
        ("chem", True, "Ready"),
        ("bio", True, "Ready"),
    ]
    owner = world.cluster.get("S1VLDeployment", "demo")["metadata"]["uid"]
    for (kind, _, name), one in world.cluster.objects.items():
        if kind not in ("S1VLDeployment", "Pod", "PersistentVolumeClaim"):
            assert [o["uid"] for o in one["metadata"]["ownerReferences"]] == [owner], (kind, name)


async def test_nothing_is_written_while_nothing_changes_not_even_by_a_new_operator(world: World) -> None:
    world.cr("chem", "bio")
    await world.converge()
    for _ in range(3):
        world.seconds += 700
        assert await world.reconcile() == []
    world.restart()
    assert await world.reconcile() == []
    assert world.again == 30


async def test_secrets_are_made_once_and_the_digest_belongs_to_the_key(world: World) -> None:
    import base64
    import hashlib

    world.cr("chem")
    await world.converge()
    before = {name: world.cluster.get("Secret", name)["data"] for name in world.cluster.names("Secret")}
    data = before["demo-sandbox-chem"]
    key = base64.b64decode(data["apiKey"])
    assert base64.b64decode(data["apiKeySha256"]).decode() == hashlib.sha256(key).hexdigest()
    assert len({d.get("apiKey") for d in before.values()}) == 3
    world.cr("chem", engine={"replicas": 2})
    await world.converge()
    assert {name: world.cluster.get("Secret", name)["data"] for name in world.cluster.names("Secret")} == before


@pytest.mark.parametrize(
    ("kind", "name", "path", "value"),
    [
        ("Service", "demo-engine", ("spec", "ports", 0, "targetPort"), 1),
        ("StatefulSet", "demo-engine", ("spec", "replicas"), 5),
        ("Deployment", "demo-sandbox-chem", ("spec", "template", "spec", "automountServiceAccountToken"), True),
        ("ConfigMap", "demo-orchestrator", ("data", "config.yaml"), "version: 2"),
        ("NetworkPolicy", "demo-sandbox", ("spec", "ingress", 0, "ports", 0, "port"), 22),
        ("NetworkPolicy", "demo-default-deny", ("spec", "egress"), [{}]),
        ("Role", "demo-orchestrator", ("rules", 0, "verbs"), ["get", "list"]),
        ("Deployment", "demo-orchestrator", ("metadata", "labels", "s1vl.io/deployment"), "other"),
        ("Service", "demo-orchestrator", ("metadata", "ownerReferences"), []),
    ],
)
async def test_an_edit_by_hand_is_mended(world: World, kind: str, name: str, path: tuple[Any, ...], value: Any) -> None:
    world.cr("chem")
    await world.converge()
    good = copy.deepcopy(world.cluster.get(kind, name))
    bad = copy.deepcopy(good)
    place: Any = bad
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    world.cluster.put(bad)
    writes = await world.reconcile()
    assert ("apply", kind, name) in writes
    await world.converge()
    now = world.cluster.get(kind, name)
    assert now["metadata"]["labels"] == good["metadata"]["labels"]
    assert now["metadata"]["ownerReferences"] == good["metadata"]["ownerReferences"]
    for part in ("spec", "data", "rules"):
        assert (
            {**now.get(part, {})} | {"egress": None} == {**good.get(part, {})} | {"egress": None}
            if part != "rules"
            else (now.get(part) == good.get(part))
        )
    assert not now.get("spec", {}).get("egress") or good["spec"].get("egress")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("Service", "demo-engine"),
        ("Deployment", "demo-sandbox-chem"),
        ("Secret", "demo-sandbox-chem"),
        ("Role", "demo-orchestrator"),
    ],
)
async def test_a_deleted_object_comes_back(world: World, kind: str, name: str) -> None:
    world.cr("chem")
    await world.converge()
    world.cluster.remove(kind, "n", name)
    await world.converge()
    assert name in world.cluster.names(kind)


async def test_a_tenant_comes_and_goes_without_touching_the_others(world: World) -> None:
    world.cr("chem")
    await world.converge()
    world.cr("chem", "bio")
    writes = await world.reconcile()
    touched = {(kind, name) for verb, kind, name in writes if verb != "create" or kind == "Secret"}
    assert not {t for t in touched if "chem" in t[1]}
    assert ("StatefulSet", "demo-engine") not in touched
    await world.converge()
    assert world.condition("Ready")[0] == "True"

    world.cr("chem")
    await world.converge()
    assert [
        name for (_, _, name) in world.cluster.objects if "bio" in name and "Pod" not in name and "-0" not in name
    ] == []
    assert world.cluster.names("PersistentVolumeClaim") == ["demo-images", "demo-model-cache"]
    assert [t["name"] for t in world.status()["tenants"]] == ["chem"]
    assert ("Normal", "Pruned") in world.said()


async def test_a_sandbox_of_an_older_operator_gives_way_to_a_deployment(world: World) -> None:
    world.cr("chem", "bio")
    await world.converge()
    for tenant in ("chem", "bio"):
        made = copy.deepcopy(world.cluster.get("Deployment", f"demo-sandbox-{tenant}"))
        world.cluster.remove("Deployment", "n", f"demo-sandbox-{tenant}")
        del made["spec"]["strategy"], made["metadata"]["uid"]
        made["spec"] |= {"serviceName": f"demo-sandbox-{tenant}", "podManagementPolicy": "Parallel"}
        world.cluster.put({**made, "kind": "StatefulSet"})
    world.cluster.run_workloads()
    secrets = copy.deepcopy([world.cluster.get("Secret", name) for name in world.cluster.names("Secret")])
    world.restart()
    writes = await world.reconcile()
    assert writes.index(("apply", "Deployment", "demo-sandbox-bio")) < writes.index(
        ("delete", "StatefulSet", "demo-sandbox-bio")
    )
    await world.converge()
    assert world.cluster.names("StatefulSet") == ["demo-engine"]
    assert world.cluster.names("Deployment") == ["demo-orchestrator", "demo-sandbox-bio", "demo-sandbox-chem"]
    assert [world.cluster.get("Secret", name) for name in world.cluster.names("Secret")] == secrets
    assert world.condition("Ready")[:2] == ("True", "AllReady")


async def test_the_orchestrator_is_told_of_sandbox_pods_at_once_and_ready_does_not_flicker(world: World) -> None:
    world.cr("chem", "bio", sandbox={"replicas": 2})
    await world.converge()
    ready = world.condition("Ready")
    config = world.cluster.get("ConfigMap", "demo-orchestrator")["data"]["config.yaml"]

    def listed() -> dict[str, list[str]]:
        found = yaml.safe_load(world.cluster.get("ConfigMap", "demo-orchestrator")["data"]["pods.yaml"])["sandboxes"]
        return {tenant: [pod["name"] for pod in pods] for tenant, pods in found.items()}

    both = {"chem": ["demo-sandbox-chem-0", "demo-sandbox-chem-1"], "bio": ["demo-sandbox-bio-0", "demo-sandbox-bio-1"]}
    assert listed() == both
    world.cluster.get("Pod", "demo-sandbox-chem-0")["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    writes = await world.reconcile()
    assert [write for write in writes if write[1] != "Event"] == [("apply", "ConfigMap", "demo-orchestrator")]
    assert listed() == {**both, "chem": ["demo-sandbox-chem-1"]}
    assert world.condition("Ready") == ready
    assert world.cluster.get("ConfigMap", "demo-orchestrator")["data"]["config.yaml"] == config


async def test_a_sandboxs_key_is_changed_by_deleting_it(world: World) -> None:
    world.cr("chem", "bio")
    await world.converge()
    world.restart()
    assert await world.reconcile() == []
    before = {t: copy.deepcopy(world.cluster.get("Deployment", f"demo-sandbox-{t}")["spec"]) for t in ("chem", "bio")}
    old = world.cluster.get("Secret", "demo-sandbox-chem")
    world.cluster.remove("Secret", "n", "demo-sandbox-chem")
    await world.converge()
    new = world.cluster.get("Secret", "demo-sandbox-chem")
    assert new["data"] != old["data"]
    after = {t: world.cluster.get("Deployment", f"demo-sandbox-{t}")["spec"] for t in ("chem", "bio")}
    assert after["bio"] == before["bio"]
    assert after["chem"]["template"]["metadata"].pop("annotations") == {
        "s1vl.io/api-key-secret-uid": new["metadata"]["uid"]
    }
    before["chem"]["template"]["metadata"].pop("annotations")
    assert after["chem"] == before["chem"]


async def test_where_pods_must_go_those_with_jobs_are_spared(world: World) -> None:
    world.cr("chem", sandbox={"replicas": 3})
    await world.converge()
    for index in range(3):
        world.cluster.get("Pod", f"demo-sandbox-chem-{index}")["status"]["podIP"] = f"10.0.1.{index}"
    world.probe.sessions = {"10.0.1.0:8080": 2, "10.0.1.2:8080": 1}
    await world.reconcile()
    assert not any("annotations" in world.cluster.get("Pod", name)["metadata"] for name in world.cluster.names("Pod"))

    world.cr("chem", sandbox={"replicas": 1})
    writes = [write for write in await world.reconcile() if write[0] in ("patch", "apply")]
    costs = [("patch", "Pod", f"demo-sandbox-chem-{index}") for index in (0, 2)]
    assert writes[:3] == [*costs, ("apply", "Deployment", "demo-sandbox-chem")], "before they are fewer"
    found = world.cluster.get("Pod", "demo-sandbox-chem-0")["metadata"]["annotations"]
    assert found == {"controller.kubernetes.io/pod-deletion-cost": "2"}


async def test_a_left_tenants_own_secret_stays_and_so_does_a_namesake_of_somebody_else(world: World) -> None:
    world.cr("chem", {"name": "bio", "apiKeySecretRef": {"name": "mine", "key": "k"}})
    world.cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "n"}})
    world.cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo-tenant-bio", "namespace": "n"}})
    await world.converge()
    world.cr("chem")
    await world.converge()
    assert world.cluster.names("Secret") == [
        "demo-orchestrator",
        "demo-sandbox-chem",
        "demo-tenant-bio",
        "demo-tenant-chem",
        "mine",
    ]


async def test_an_invalid_resource_says_so_and_disturbs_nobody(world: World) -> None:
    world.cr("chem")
    await world.converge()
    world.cr("chem", name="bad", images={"volume": {"size": "many"}})
    await world.reconcile("bad")
    status, reason, message = world.condition("Ready", "bad")
    assert (status, reason) == ("False", "InvalidSpec")
    assert "spec.images.volume.size" in message
    assert world.again is None, "nothing to look at until the spec changes"
    assert ("Warning", "InvalidSpec") in world.said()
    assert not [name for (_, _, name) in world.cluster.objects if name.startswith("bad-")]
    assert await world.reconcile("bad") == []
    assert await world.reconcile("demo") == []
    assert world.condition("Ready")[0] == "True"

    world.cr("chem", name="bad")
    await world.converge("bad")
    assert world.condition("Ready", "bad")[0] == "True"


async def test_what_runs_goes_on_when_a_spec_becomes_invalid(world: World) -> None:
    world.cr("chem")
    await world.converge()
    before = {key: one for key, one in world.cluster.objects.items() if key[0] != "S1VLDeployment"}
    world.cr("chem", engine={"gpus": 3})
    await world.reconcile()
    assert world.condition("Ready")[1] == "InvalidSpec"
    assert world.condition("EngineReady")[0] == "Unknown"
    assert world.status()["selector"], "an autoscaler goes on reading /scale"
    assert {key: one for key, one in world.cluster.objects.items() if key[0] != "S1VLDeployment"} == before


async def test_a_refused_object_becomes_a_condition_and_is_not_tried_in_a_loop(world: World) -> None:
    def refuse(verb: str, manifest: dict[str, Any]) -> ApiError | None:
        if verb == "apply" and manifest["metadata"]["name"] == "demo-engine" and manifest["kind"] == "StatefulSet":
            return ApiError(403, "Forbidden", 'admission webhook "no" denied the request: no GPUs here')
        return None

    world.cluster.refuse = refuse
    world.cr("chem")
    await world.reconcile()
    status, reason, message = world.condition("Ready")
    assert (status, reason) == ("False", "ApplyFailed")
    assert "StatefulSet demo-engine" in message
    assert "no GPUs here" in message
    assert "demo-orchestrator" in world.cluster.names("Deployment"), "the others are made all the same"
    world.cluster.run_workloads()
    await world.reconcile()
    assert await world.reconcile() == [], "not asked again at once"
    world.seconds += 61
    assert await world.reconcile() == [("apply", "StatefulSet", "demo-engine")]

    world.cluster.refuse = lambda _verb, _manifest: None
    world.seconds += 61
    await world.converge()
    assert world.condition("Ready")[0] == "True"


async def test_nothing_is_pruned_while_something_could_not_be_applied(world: World) -> None:
    world.cr("chem", "bio")
    await world.converge()
    world.cluster.refuse = lambda verb, m: (
        ApiError(422, "Invalid", "no") if (verb, m["kind"]) == ("apply", "ConfigMap") else None
    )
    world.cr("chem")
    await world.reconcile()
    assert "demo-sandbox-bio" in world.cluster.names("Deployment")
    assert world.condition("Progressing")[1] == "ApplyFailed"


async def test_an_unchangeable_field_has_a_reason_of_its_own(world: World) -> None:
    world.cr("chem")
    await world.converge()
    text = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden"
    world.cluster.refuse = lambda verb, m: ApiError(422, "Invalid", text) if m["kind"] == "StatefulSet" else None
    world.cr("chem", engine={"port": 9300})
    await world.reconcile()
    assert world.condition("Ready")[:2] == ("False", "ImmutableField")


async def test_a_strangers_object_of_our_name_is_left_alone(world: World) -> None:
    stranger = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "demo-orchestrator", "namespace": "n"},
        "data": {"a": "b"},
    }
    world.cluster.put(stranger)
    world.cr("chem")
    await world.reconcile()
    assert world.condition("Ready")[:2] == ("False", "NameTaken")
    assert world.cluster.get("ConfigMap", "demo-orchestrator")["data"] == {"a": "b"}
    world.cluster.remove("ConfigMap", "n", "demo-orchestrator")
    await world.converge()
    assert world.condition("Ready")[0] == "True"


async def test_objects_of_a_deleted_namesake_are_waited_for(world: World) -> None:
    world.cr("chem")
    await world.converge()
    old = copy.deepcopy(world.cluster.get("Service", "demo-engine"))
    world.cluster.remove("S1VLDeployment", "n", "demo")
    assert world.cluster.names("Service") == []
    world.cluster.put(old)
    world.cr("chem")
    await world.reconcile()
    assert world.condition("Progressing")[:2] == ("False", "Reconciling")
    assert world.again == 2
    world.cluster.remove("Service", "n", "demo-engine")
    await world.converge()
    assert world.condition("Ready")[0] == "True"


async def test_a_paused_resource_is_only_looked_at(world: World) -> None:
    """Whatever there would be to do."""
    world.cluster.keda = True
    engine = {"autoscaling": {"max": 3, "waitingRequestsPerReplica": 5}}
    sleepy = {"idleTimeoutSeconds": 60}
    world.cr("chem", "bio", engine=engine, sandbox=sleepy)
    await world.converge()
    later = {"engine": {"replicas": 2, "port": 9300}, "sandbox": {"replicas": 2, **sleepy}}
    paused = world.cr("chem", "physics", **later, paused=True)
    annotated = {**paused["metadata"], "annotations": {"s1vl.io/restartedAt": "now"}}
    world.cluster.put({**paused, "metadata": annotated})
    world.cluster.remove("Service", "n", "demo-engine")
    world.cluster.remove("Secret", "n", "demo-sandbox-chem")
    world.cluster.get("Deployment", "demo-orchestrator")["spec"]["replicas"] = 9
    pod = world.cluster.get("Pod", "demo-engine-0")
    world.health.hung = frozenset({pod["metadata"]["uid"]})
    world.seconds += 3600
    before = {key: one for key, one in copy.deepcopy(world.cluster.objects).items() if key[0] != "S1VLDeployment"}
    for _ in range(3):
        writes = await world.reconcile()
        assert {verb for verb, kind, _ in writes if kind != "Event"} <= {"apply-status"}
    assert {key: one for key, one in world.cluster.objects.items() if key[0] != "S1VLDeployment"} == before
    assert world.condition("Progressing")[:2] == ("False", "Paused")
    assert world.status()["observedGeneration"] == 2

    world.health.hung = frozenset()
    world.cr("chem", "physics")
    await world.converge()
    assert "demo-engine" in world.cluster.names("Service")
    assert world.condition("Ready")[0] == "True"


async def test_the_status_follows_the_truth_down_and_up(world: World) -> None:
    world.cr("chem")
    await world.converge()
    since = {c["type"]: c["lastTransitionTime"] for c in world.status()["conditions"]}

    world.seconds += 100
    engine = world.cluster.get("StatefulSet", "demo-engine")
    engine["status"]["readyReplicas"] = 0
    waiting = {"name": "vllm", "image": "x", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    world.cluster.put(pod(engine, "demo-engine-0", "n", conditions=[], containerStatuses=[waiting]))
    await world.reconcile()
    assert world.condition("EngineReady")[:2] == ("False", "ImagePullBackOff")
    assert world.condition("Ready")[:2] == ("False", "ImagePullBackOff")
    assert world.condition("Progressing")[:2] == ("False", "RolloutBlocked")
    now = {c["type"]: c["lastTransitionTime"] for c in world.status()["conditions"]}
    assert {kind for kind in now if now[kind] != since.get(kind)} == {"Ready", "EngineReady", "Reconciling"}

    world.seconds += 100
    world.probe.wrong = {"chem": "wrote /srv/s1vl/images/chem/x, the sandbox read nothing at /mnt/data/images/x"}
    await world.converge()
    assert world.condition("EngineReady")[0] == "True"
    status, reason, message = world.condition("PathsConsistent")
    assert (status, reason) == ("False", "CanaryMismatch")
    assert "/mnt/data/images/x" in message
    assert world.status()["tenantsReady"] == "0/1"

    world.probe.wrong = {}
    await world.converge()
    assert world.condition("Ready")[:2] == ("True", "AllReady")


@pytest.mark.parametrize(
    ("trouble", "reason"), [({"silent": True}, "OrchestratorUnreachable"), ({"stale": True}, "ConfigNotLoaded")]
)
async def test_an_orchestrator_that_is_deaf_or_behind_is_not_ready(
    world: World, trouble: dict[str, bool], reason: str
) -> None:
    world.cr("chem")
    await world.converge()
    vars(world.probe).update(trouble)
    await world.reconcile()
    assert world.condition("Ready")[:2] == ("False", reason)
    assert world.condition("PathsConsistent")[:2] == ("Unknown", "NotChecked")
    assert world.again == 2


async def test_events_are_posted_on_transitions_only(world: World) -> None:
    world.cr("chem")
    await world.converge()
    said = world.said()
    assert said[0] == ("Normal", "Applied")
    assert ("Normal", "AllReady") in said
    assert [reason for _, reason in said].count("AllReady") == 1
    for _ in range(3):
        world.seconds += 40
        await world.reconcile()
    assert world.said() == said
    world.probe.wrong = {"chem": "not the same"}
    await world.reconcile()
    assert world.said()[len(said) :] == [("Warning", "NotReady"), ("Warning", "CanaryMismatch")]
    for event in world.cluster.events:
        assert event["regarding"]["uid"] == world.cluster.get("S1VLDeployment", "demo")["metadata"]["uid"]
        assert len(event["note"].encode()) <= 1024


async def test_a_resource_that_is_gone_or_going_needs_nothing(world: World) -> None:
    assert await world.reconcile("nobody") == []
    cr = world.cr("chem")
    cr["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.cluster.put(cr)
    assert await world.reconcile() == []
    assert world.again is None


async def test_a_race_with_another_writer_is_tried_again_and_no_condition(world: World) -> None:
    world.cr("chem")
    await world.converge()
    before = world.status()
    world.cluster.refuse = lambda verb, m: ApiError(409, "Conflict", "modified") if verb == "apply" else None
    world.cluster.remove("Service", "n", "demo-engine")
    with pytest.raises(ApiError, match="modified"):
        await world.reconcile()
    assert world.status() == before


async def test_a_value_that_the_server_stores_in_its_own_way_is_not_applied_for_ever(world: World) -> None:
    put = world.cluster.put

    def stubborn(manifest: dict[str, Any]) -> dict[str, Any]:
        if manifest["kind"] == "StatefulSet":
            manifest = copy.deepcopy(manifest)
            manifest["spec"]["revisionHistoryLimit"] = 7
        return put(manifest)

    world.cluster.put = stubborn  # type: ignore[method-assign]
    world.cr("chem")
    await world.converge()
    assert await world.reconcile() == []
    assert world.condition("Ready")[0] == "True"
    world.cluster.get("StatefulSet", "demo-engine")["spec"]["replicas"] = 9
    assert ("apply", "StatefulSet", "demo-engine") in await world.reconcile()


async def test_a_forbidden_event_does_not_stop_the_work(world: World) -> None:
    world.cluster.refuse = lambda _verb, m: ApiError(403, "Forbidden", "no events") if m["kind"] == "Event" else None
    world.cr("chem")
    for _ in range(4):
        world.cluster.run_workloads()
        await world.reconcile()
    assert world.condition("Ready")[0] == "True"


async def test_it_looks_more_often_only_while_nothing_says_why_a_pod_is_missing(world: World) -> None:
    world.cr("chem")
    await world.reconcile()
    assert world.again == 5, "the engine's pod is missing, and only an event may say why"

    world.cluster.run_workloads()
    world.cluster.get("Pod", "demo-engine-0")["status"] = {
        "conditions": [{"type": kind, "status": "True"} for kind in ("PodScheduled", "PodReadyToStartContainers")]
    }
    world.cluster.get("StatefulSet", "demo-engine")["status"]["readyReplicas"] = 0
    await world.reconcile()
    assert world.condition("Ready")[1] == "EngineStarting"
    assert world.again == 15, "its image is pulled, which the kubelet tells in the pod"


async def test_a_deployment_that_is_scaled_to_zero_is_looked_at_as_rarely_as_one_that_is_ready(world: World) -> None:
    world.cr("chem", engine={"replicas": 0})
    await world.converge()
    assert world.condition("Ready")[:2] == ("False", "ScaledToZero")
    assert world.again == 30
