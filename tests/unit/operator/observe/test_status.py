"""From one snapshot to the whole status."""

from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator.api.reasons import Reason
from s1vl_operator.api.v1alpha1 import InvalidSpec
from s1vl_operator.observe import Hindrance, Report, Snapshot, invalid_status, parse_report, status
from tests.unit.operator.observe.conftest import deployment, healthy, pod, report, workload

NOW, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
REFUSAL = "invalid configuration refused: protocol: code_open: Field required"
NO_GPU = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}]}
MOUNTS = "wrote /srv/s1vl/images/chem/.s1vl/canary/x, the sandbox did not find /mnt/data/images/.s1vl/canary/x"


def conditions(snapshot: Snapshot, **spec: Any) -> dict[str, tuple[str, str]]:
    found = status(deployment(**spec), snapshot, NOW)
    return {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]}


def test_all_is_well() -> None:
    found = status(deployment("chem", "bio"), healthy("chem", "bio"), NOW)
    assert [(c["type"], c["status"], c["reason"]) for c in found["conditions"]] == [
        ("Ready", "True", "AllReady"),
        ("EngineReady", "True", "EngineReady"),
        ("OrchestratorReady", "True", "OrchestratorReady"),
        ("SandboxesReady", "True", "SandboxesReady"),
        ("PathsConsistent", "True", "PathsConsistent"),
        ("Progressing", "False", "Stable"),
    ]
    assert {c["observedGeneration"] for c in found["conditions"]} == {4} == {found["observedGeneration"]}
    assert (found["replicas"], found["engine"], found["tenantsReady"]) == (1, "1/1", "2/2")
    assert (
        found["selector"] == "app.kubernetes.io/component=engine,app.kubernetes.io/part-of=s1vl,s1vl.io/deployment=demo"
    )
    assert found["url"] == "http://demo-orchestrator.n.svc:10044"
    assert found["tenants"][1] == {"name": "bio", "ready": True, "reason": "Ready", "message": "", "url": found["url"]}


ENGINE = {
    "absent": (
        healthy(without=["demo-engine-0"], objects=[workload("StatefulSet", "demo-engine", ready=0, pods=0)]),
        "False",
        "EngineStarting",
    ),
    "starting": (
        healthy(
            objects=[workload("StatefulSet", "demo-engine", ready=0)],
            pods=[pod("demo-engine-0", "engine", ready=False)],
        ),
        "False",
        "EngineStarting",
    ),
    "no GPU": (
        healthy(
            objects=[workload("StatefulSet", "demo-engine", ready=0)],
            pods=[pod("demo-engine-0", "engine", ready=False, **NO_GPU)],
        ),
        "False",
        "Unschedulable",
    ),
    "about to be replaced": (
        healthy(objects=[workload("StatefulSet", "demo-engine", updated=0)]),
        "False",
        "RolloutInProgress",
    ),
    "spec not yet seen": (
        healthy(objects=[workload("StatefulSet", "demo-engine", seen=2)]),
        "False",
        "RolloutInProgress",
    ),
    "not reached by the orchestrator": (healthy(reports=[report(engine=False)]), "False", "EngineUnreachable"),
    "hung": (healthy(hung=frozenset({"demo-engine-0"})), "False", "EngineStalled"),
}


@pytest.mark.parametrize(("snapshot", "state", "reason"), ENGINE.values(), ids=ENGINE)
def test_the_engine(snapshot: Snapshot, state: str, reason: str) -> None:
    found = conditions(snapshot)
    assert found["EngineReady"] == found["Ready"] == (state, reason)


def test_an_engine_with_some_of_its_pods_serves() -> None:
    objects = [workload("StatefulSet", "demo-engine", 2, 1)]
    snapshot = healthy(objects=objects, pods=[pod("demo-engine-1", "engine", ready=False, **NO_GPU)])
    found = conditions(snapshot, engine={"replicas": 2})
    assert found["EngineReady"] == ("True", "EngineDegraded")
    assert found["Ready"] == ("True", "AllReady")
    assert found["Progressing"] == ("False", "RolloutBlocked")


@pytest.mark.parametrize(("ready", "kind"), [(0, "EngineReady"), (1, "EngineReady"), (0, "Ready"), (1, "Progressing")])
def test_a_message_ends_with_what_to_do_about_the_pod_that_is_the_cause(ready: int, kind: str) -> None:
    objects = [workload("StatefulSet", "demo-engine", 2, ready=ready)]
    pods = [pod(f"demo-engine-{n}", "engine", ready=n < ready, **NO_GPU) for n in (0, 1)]
    found = status(deployment(engine={"replicas": 2}), healthy(objects=objects, pods=pods), NOW)
    message = {c["type"]: c["message"] for c in found["conditions"]}[kind]
    assert message.endswith(f"Insufficient nvidia.com/gpu. {Reason.UNSCHEDULABLE.remedy}")


def test_a_tenants_message_ends_with_what_to_do_too() -> None:
    objects = [workload("StatefulSet", "demo-sandbox-chem", ready=0)]
    pods = [pod("demo-sandbox-chem-0", "sandbox", "chem", ready=False, **NO_GPU)]
    (tenant,) = status(deployment(), healthy(objects=objects, pods=pods), NOW)["tenants"]
    assert tenant["message"].endswith(f". {Reason.UNSCHEDULABLE.remedy}")


def test_what_passes_or_is_as_it_should_be_gives_no_advice() -> None:
    for snapshot in (healthy(), Snapshot({}), healthy(hindrance=Hindrance(Reason.PAUSED, "spec.paused is true"))):
        found = status(deployment(), snapshot, NOW)
        for one in (*found["conditions"], *found["tenants"]):
            assert Reason(one["reason"]).remedy not in one["message"]


def test_a_correction_that_has_not_reached_the_controller_is_no_blocked_rollout() -> None:
    broken = pod("demo-engine-0", "engine", ready=False, **NO_GPU)
    stuck = healthy(objects=[workload("StatefulSet", "demo-engine", ready=0)], pods=[broken])
    corrected = healthy(objects=[workload("StatefulSet", "demo-engine", ready=0, seen=2)], pods=[broken])
    assert conditions(stuck)["Progressing"] == ("False", "RolloutBlocked")
    assert conditions(corrected)["Progressing"] == ("True", "RolloutInProgress")


def test_an_engine_of_which_one_pod_hangs_serves_and_says_so() -> None:
    snapshot = healthy(objects=[workload("StatefulSet", "demo-engine", 2)], hung=frozenset({"demo-engine-1"}))
    found = status(deployment(engine={"replicas": 2}), snapshot, NOW)["conditions"][1]
    assert (found["status"], found["reason"]) == ("True", "EngineDegraded")
    said = "2 of 2 engine pods ready; had requests and computed nothing for 120 s: demo-engine-1"
    assert found["message"] == f"{said}. {Reason.ENGINE_DEGRADED.remedy}"


def test_an_engine_of_no_replicas_is_no_failure_but_serves_nobody() -> None:
    snapshot = healthy(objects=[workload("StatefulSet", "demo-engine", 0)], without=["demo-engine-0"])
    found = conditions(snapshot, engine={"replicas": 0})
    assert found["EngineReady"] == ("True", "ScaledToZero")
    assert found["Ready"] == ("False", "ScaledToZero")
    assert found["Progressing"] == ("False", "Stable")


ORCHESTRATOR = {
    "starting": (
        healthy(
            objects=[workload("Deployment", "demo-orchestrator", ready=0)],
            pods=[pod("demo-orchestrator-x", "orchestrator", ready=False)],
            reports=[],
        ),
        "OrchestratorStarting",
    ),
    "deaf": (healthy(reports=[Report("demo-orchestrator-x", error="timeout")]), "OrchestratorUnreachable"),
    "behind": (healthy(reports=[report(version="old")]), "ConfigNotLoaded"),
    "one of two behind": (healthy(reports=[report(), report(pod="b", version="old")]), "ConfigNotLoaded"),
    "scaled to zero": (healthy(objects=[workload("Deployment", "demo-orchestrator", 0)], reports=[]), "ScaledToZero"),
    "refuses": (healthy(reports=[report(version="old", refusal=REFUSAL)]), "ConfigurationRefused"),
    "one of two refuses": (healthy(reports=[report(), report(version="old", refusal=REFUSAL)]), "ConfigurationRefused"),
    "refuses the first": (
        healthy(
            objects=[workload("Deployment", "demo-orchestrator", ready=0)],
            pods=[pod("demo-orchestrator-x", "orchestrator", ready=False)],
            reports=[report(version="", engine=False, refusal=REFUSAL)],
        ),
        "ConfigurationRefused",
    ),
    "an old one refuses while new ones come": (
        healthy(
            objects=[workload("Deployment", "demo-orchestrator", updated=0, pods=2)],
            reports=[report(version="old", refusal=REFUSAL)],
        ),
        "ConfigNotLoaded",
    ),
    "another protocol than asked for": (
        healthy(protocol=Hindrance(Reason.PROTOCOL_NOT_FOUND, "there is no ConfigMap mine")),
        "ProtocolNotFound",
    ),
    "no protocol and therefore no configuration": (
        healthy(
            objects=[workload("Deployment", "demo-orchestrator", ready=0)],
            reports=[],
            protocol=Hindrance(Reason.PROTOCOL_NOT_FOUND, "there is no ConfigMap mine"),
        ),
        "ProtocolNotFound",
    ),
}


@pytest.mark.parametrize(("snapshot", "reason"), ORCHESTRATOR.values(), ids=ORCHESTRATOR)
def test_the_orchestrator(snapshot: Snapshot, reason: str) -> None:
    found = conditions(snapshot)
    assert found["OrchestratorReady"] == found["Ready"] == ("False", reason)


def test_a_refused_configuration_is_told_and_the_one_before_goes_on_serving() -> None:
    found = status(deployment(), healthy(reports=[report(version="old", refusal=REFUSAL)]), NOW)
    by_type = {c["type"]: c for c in found["conditions"]}
    assert by_type["Ready"]["message"] == (
        f"1 of 1 orchestrator pods ready; demo-orchestrator-x: {REFUSAL}. {Reason.CONFIGURATION_REFUSED.remedy}"
    )
    assert by_type["PathsConsistent"]["status"] == by_type["EngineReady"]["status"] == "True"
    assert (found["tenantsReady"], found["tenants"][0]["ready"]) == ("1/1", True)


def test_an_unreadable_configuration_is_not_refused() -> None:
    answer = {"configVersion": "old", "message": "unreadable: no", "engine": {"ready": True}, "tenants": []}
    assert conditions(healthy(reports=[parse_report("x", answer)]))["OrchestratorReady"] == ("False", "ConfigNotLoaded")


def test_one_orchestrator_that_answers_is_enough() -> None:
    found = conditions(healthy(reports=[report(), Report("demo-orchestrator-y", error="timeout")]))
    assert found["Ready"] == ("True", "AllReady")


def test_a_tenants_sandbox_that_fails_is_that_tenants_trouble_alone() -> None:
    last = {"terminated": {"exitCode": 1, "message": "/volume/chem belongs to uid 0"}}
    failed = {"initContainerStatuses": [{"name": "storage-init", "state": last}]}
    snapshot = healthy(
        "chem",
        "bio",
        objects=[workload("Deployment", "demo-sandbox-chem", ready=0)],
        pods=[pod("demo-sandbox-chem-0", "sandbox", "chem", ready=False, **failed)],
    )
    found = status(deployment("chem", "bio"), snapshot, NOW)
    assert [(t["name"], t["ready"], t["reason"]) for t in found["tenants"]] == [
        ("chem", False, "StorageInitFailed"),
        ("bio", True, "Ready"),
    ]
    by_type = {c["type"]: c for c in found["conditions"]}
    assert by_type["SandboxesReady"]["reason"] == by_type["Ready"]["reason"] == "StorageInitFailed"
    assert "/volume/chem belongs to uid 0" in by_type["Ready"]["message"]
    assert "bio" not in by_type["SandboxesReady"]["message"]
    assert (by_type["PathsConsistent"]["status"], by_type["PathsConsistent"]["reason"]) == ("Unknown", "NotChecked")
    assert found["tenantsReady"] == "1/2"


def test_paths_that_do_not_agree() -> None:
    snapshot = healthy("chem", "bio", reports=[report("chem", "bio", chem=("CanaryMismatch", False, MOUNTS))])
    found = status(deployment("chem", "bio"), snapshot, NOW)
    by_type = {c["type"]: c for c in found["conditions"]}
    assert (by_type["PathsConsistent"]["status"], by_type["PathsConsistent"]["reason"]) == ("False", "CanaryMismatch")
    assert by_type["PathsConsistent"]["message"] == f"chem: {MOUNTS}. {Reason.CANARY_MISMATCH.remedy}"
    assert (by_type["Ready"]["status"], by_type["Ready"]["reason"]) == ("False", "CanaryMismatch")
    assert [(t["ready"], t["reason"]) for t in found["tenants"]] == [(False, "PathsInconsistent"), (True, "Ready")]


def test_the_worst_of_several_orchestrators_counts() -> None:
    bad = report(pod="b", chem=("CanaryWriteFailed", False, "read-only file system"))
    unsure = report(pod="c", chem=("NotChecked", None, ""))
    assert conditions(healthy(reports=[report(), unsure]))["PathsConsistent"] == ("Unknown", "NotChecked")
    assert conditions(healthy(reports=[report(), unsure, bad]))["PathsConsistent"] == ("False", "CanaryWriteFailed")


def test_a_tenant_without_a_key_is_not_served_though_its_paths_agree() -> None:
    answer = {
        "name": "chem",
        "ready": False,
        "reason": "KeyMissing",
        "message": "Secret mine has no key k",
        "paths": {"consistent": True, "reason": "PathsConsistent", "message": ""},
    }
    engine = {"ready": True, "message": ""}
    version = healthy().config_version
    one = parse_report("x", {"configVersion": version, "engine": engine, "tenants": [answer]})
    found = conditions(healthy(reports=[one]))
    assert found["PathsConsistent"] == ("True", "PathsConsistent")
    assert found["Ready"] == ("False", "KeyMissing")


@pytest.mark.parametrize("reason", [Reason.APPLY_FAILED, Reason.IMMUTABLE_FIELD, Reason.NAME_TAKEN])
def test_what_could_not_be_applied_is_first(reason: Reason) -> None:
    found = conditions(healthy(hindrance=Hindrance(reason, "Service x: no")))
    assert found["Ready"] == found["Progressing"] == ("False", reason.value)
    assert found["EngineReady"] == ("True", "EngineReady")


def test_paused_is_no_failure() -> None:
    found = conditions(healthy(hindrance=Hindrance(Reason.PAUSED, "spec.paused is true")))
    assert found["Ready"] == ("True", "AllReady")
    assert found["Progressing"] == ("False", "Paused")


def test_nothing_is_there_yet() -> None:
    found = conditions(Snapshot({}))
    assert found["Ready"] == found["EngineReady"] == ("False", "EngineStarting")
    assert found["Progressing"] == ("True", "RolloutInProgress")


def test_times_change_only_with_the_status() -> None:
    first = deployment()
    first.status.update(status(first, healthy(), NOW))
    degraded = healthy(reports=[report(chem=("CanaryMismatch", False, MOUNTS))])
    second = status(first, degraded, LATER)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert {kind for kind, time in times.items() if time == LATER} == {"Ready", "PathsConsistent"}
    assert status(first, healthy(), LATER) == first.status


def test_many_tenants_do_not_make_an_endless_message() -> None:
    names = [f"t{n}" for n in range(200)]
    found = status(deployment(*names), Snapshot({}), NOW)
    message = {c["type"]: c["message"] for c in found["conditions"]}["SandboxesReady"]
    assert "and 195 more" in message
    assert len(message) < 500


def test_an_invalid_spec() -> None:
    before = status(deployment(), healthy(), NOW)
    cr = {"metadata": {"name": "demo", "namespace": "n", "generation": 9}, "status": before}
    found = invalid_status(cr, InvalidSpec("spec.engine.gpus", "must be 1, 2, 4 or 8"), LATER)
    by_type = {c["type"]: c for c in found["conditions"]}
    assert (by_type["Ready"]["status"], by_type["Ready"]["reason"]) == ("False", "InvalidSpec")
    assert by_type["Ready"]["message"] == "spec.engine.gpus: must be 1, 2, 4 or 8. Correct the field."
    assert {c["status"] for kind, c in by_type.items() if c["reason"] != "InvalidSpec"} == {"Unknown"}
    assert (found["observedGeneration"], found["replicas"], found["selector"]) == (9, 1, before["selector"])
    assert "tenants" not in found


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {"configVersion": "x"},
        {"configVersion": "x", "engine": {"ready": True}, "tenants": [{"name": "a"}]},
    ],
)
def test_an_answer_in_another_form_is_an_error_of_that_pod(answer: Any) -> None:
    assert "not in the expected form" in parse_report("p", answer).error


def test_a_reason_of_another_version_is_not_known() -> None:
    tenant = {
        "name": "a",
        "ready": False,
        "reason": "New",
        "message": "m",
        "paths": {"consistent": "yes", "reason": "Newer"},
    }
    found = parse_report("p", {"configVersion": "x", "engine": {"ready": True}, "tenants": [tenant]})
    assert found.tenants["a"].reason is Reason.NOT_CHECKED
    assert found.tenants["a"].consistent is None


@pytest.mark.parametrize(
    ("code", "words", "reason"),
    [
        (78, "this node's Linux lacks: tcp, signals", "IsolationMissing"),
        (1, "no room on /run/s1vl", "CrashLoopBackOff"),
    ],
)
def test_a_sandbox_that_refuses_to_start_says_why(code: int, words: str, reason: str) -> None:
    ended = {"terminated": {"exitCode": code, "reason": "Error", "message": words}}
    kernels = {
        "name": "kernels",
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": ended,
    }
    server = {"name": "sandbox", "ready": False, "state": {"running": {}}}
    broken = pod("demo-sandbox-chem-0", "sandbox", "chem", ready=False, containerStatuses=[kernels, server])
    snapshot = healthy("chem", "bio", objects=[workload("Deployment", "demo-sandbox-chem", ready=0)], pods=[broken])
    found = status(deployment("chem", "bio"), snapshot, NOW)
    by_type = {c["type"]: c for c in found["conditions"]}
    assert (by_type["SandboxesReady"]["reason"], by_type["Ready"]["reason"]) == (reason, reason)
    assert words in by_type["Ready"]["message"]
    chem, bio = found["tenants"]
    assert (chem["ready"], chem["reason"], bio["ready"]) == (False, reason, True)
    assert words in chem["message"]
