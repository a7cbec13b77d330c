"""What a pod's own status says about why it is not ready."""

from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator.observe.pods import pod_problem, workload_problem
from s1vl_operator.observe.snapshot import Snapshot
from tests.unit.operator.observe.conftest import labels, pod, workload

SCHEDULER = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def unscheduled(message: str) -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}


def container(name: str = "vllm", *, init: bool = False, **status: Any) -> dict[str, Any]:
    return {"initContainerStatuses" if init else "containerStatuses": [{"name": name, "image": "img:1", **status}]}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


CASES = {
    "no node fits": (unscheduled(SCHEDULER), "Unschedulable", SCHEDULER),
    "image cannot be pulled": (
        container(state=waiting("ErrImagePull", "429")),
        "ImagePullBackOff",
        "cannot pull img:1",
    ),
    "image pull backs off": (container(state=waiting("ImagePullBackOff")), "ImagePullBackOff", "cannot pull img:1"),
    "image must be there already": (container(state=waiting("ErrImageNeverPull")), "ImagePullBackOff", "img:1"),
    "a Secret is missing": (
        container(state=waiting("CreateContainerConfigError", 'secret "x" not found')),
        "ContainerConfigError",
        'secret "x" not found',
    ),
    "just ended": (container(state=ended(2, "bad flag")), "CrashLoopBackOff", "exit code 2: bad flag"),
    "backs off": (
        container(state=waiting("CrashLoopBackOff"), lastState=ended(2, "bad flag")),
        "CrashLoopBackOff",
        "exit code 2: bad flag",
    ),
    "runs again": (
        container(state={"running": {}}, lastState=ended(2, "bad\nflag"), ready=False),
        "CrashLoopBackOff",
        "exit code 2: bad flag",
    ),
    "ends well, again and again": (
        container(state=waiting("CrashLoopBackOff"), lastState=ended(0, reason="Completed")),
        "CrashLoopBackOff",
        "exit code 0",
    ),
    "out of memory": (
        container(state=waiting("CrashLoopBackOff"), lastState=ended(137, reason="OOMKilled")),
        "OOMKilled",
        "container vllm was killed at its memory limit",
    ),
    "kernels cannot be confined": (
        container("kernels", state=waiting("CrashLoopBackOff"), lastState=ended(78, "no Landlock: tcp, signals")),
        "IsolationMissing",
        "container kernels refuses to start: no Landlock: tcp, signals; requireIsolation is strict",
    ),
    "exit code 78 of another program": (container(state=ended(78, "x")), "CrashLoopBackOff", "exit code 78: x"),
    "storage-init failed": (
        container(
            "storage-init", init=True, state=waiting("CrashLoopBackOff"), lastState=ended(1, "/volume is read-only")
        ),
        "StorageInitFailed",
        "exit code 1: /volume is read-only",
    ),
    "another init container failed": (
        container("mine", init=True, state=ended(3)),
        "CrashLoopBackOff",
        "container mine",
    ),
    "evicted": ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "PodRefused", "low on memory"),
}


@pytest.mark.parametrize(("status", "reason", "message"), CASES.values(), ids=CASES)
def test_a_problem(status: dict[str, Any], reason: str, message: str) -> None:
    problem = pod_problem(Snapshot({}), pod("demo-engine-0", "engine", ready=False, **status))
    assert problem is not None
    assert problem.reason == reason
    assert problem.message.startswith("demo-engine-0")
    assert message in problem.message


def restarted(finished: str, code: int = 137, reason: str = "OOMKilled") -> dict[str, Any]:
    """A sandbox's pod whose kernels run again and whose server waits for them."""
    last = ended(code, "no room", reason)
    last["terminated"]["finishedAt"] = finished
    one = pod("demo-sandbox-chem-0", "sandbox", "chem", ready=False)
    one["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T10:00:00Z"
    one["status"]["containerStatuses"] = [
        {"name": "kernels", "ready": True, "state": {"running": {}}, "lastState": last},
        {"name": "sandbox", "ready": False, "state": {"running": {}}, "lastState": {}},
    ]
    return one


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (restarted("2026-01-01T09:59:50Z"), "OOMKilled"),
        (restarted("2026-01-01T10:03:00Z"), "OOMKilled"),
        (restarted("2026-01-01T09:59:50Z", 1, "Error"), "CrashLoopBackOff"),
        (restarted("2026-01-01T09:59:50Z", 78, "Error"), "IsolationMissing"),
        # Long over: it is not why the pod is not ready today.
        (restarted("2026-01-01T09:00:00Z"), None),
        (restarted("2026-01-01T09:59:50Z", 0, "Completed"), None),
    ],
)
def test_kernels_that_run_again_while_the_server_waits_for_them(one: dict[str, Any], reason: str | None) -> None:
    problem = pod_problem(Snapshot({}), one)
    assert (problem.reason if problem else None) == reason
    assert problem is None or "container kernels" in problem.message


TIME = {
    "new": {},
    "creating": container(state=waiting("ContainerCreating")),
    "initialising": container("storage-init", init=True, state={"running": {}})
    | container(state=waiting("PodInitializing")),
    "started": container(state={"running": {}}, ready=False),
    "initialised": container("storage-init", init=True, state=ended(0, reason="Completed")),
}


@pytest.mark.parametrize("status", TIME.values(), ids=TIME)
def test_what_only_needs_time_is_no_problem(status: dict[str, Any]) -> None:
    assert pod_problem(Snapshot({}), pod("demo-engine-0", "engine", ready=False, **status)) is None


def test_the_message_does_not_change_between_two_looks_at_one_and_the_same_crash() -> None:
    states = [
        container(state=ended(2, "bad flag")),
        container(state=waiting("CrashLoopBackOff", "back-off 10s restarting"), lastState=ended(2, "bad flag")),
        container(state=waiting("CrashLoopBackOff", "back-off 20s restarting"), lastState=ended(2, "bad flag")),
        container(state={"running": {}}, ready=False, lastState=ended(2, "bad flag"), restartCount=7),
    ]
    assert len({pod_problem(Snapshot({}), pod("p", "engine", ready=False, **state)) for state in states}) == 1


def event(kind: str, name: str, reason: str, note: str, time: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    return {"regarding": {"kind": kind, "name": name}, "reason": reason, "note": note, "deprecatedLastTimestamp": time}


def test_a_claim_that_is_pending_is_named_with_its_own_events() -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "demo-images"}, "status": {"phase": "Pending"}}
    one = pod("demo-engine-0", "engine", ready=False, **unscheduled("pod has unbound immediate PersistentVolumeClaims"))
    one["spec"] = {
        "volumes": [{"name": "tmp"}, {"name": "images", "persistentVolumeClaim": {"claimName": "demo-images"}}]
    }
    objects = {("PersistentVolumeClaim", "demo-images"): claim}
    warnings = [event("PersistentVolumeClaim", "demo-images", "ProvisioningFailed", 'storageclass "x" not found')]
    problem = pod_problem(Snapshot(objects, warnings=warnings), one)
    assert problem is not None
    assert problem.reason == "PVCPending"
    assert "demo-images" in problem.message
    assert 'storageclass "x" not found' in problem.message


def test_a_volume_that_cannot_be_mounted() -> None:
    one = pod("demo-engine-0", "engine", ready=False, **container(state=waiting("ContainerCreating")))
    warnings = [
        event("Pod", "demo-engine-0", "FailedMount", "old", "2026-01-01T00:00:00Z"),
        event("Pod", "demo-engine-0", "FailedMount", "mount failed: no such host", "2026-01-02T00:00:00Z"),
        event("Pod", "other", "FailedMount", "not ours", "2026-01-03T00:00:00Z"),
    ]
    problem = pod_problem(Snapshot({}, warnings=warnings), one)
    assert problem is not None
    assert (problem.reason, problem.message) == ("ContainerConfigError", "demo-engine-0: mount failed: no such host")


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("create Pod failed: exceeded quota: gpus, requested: 4, used: 0, limited: 2", "QuotaExceeded"),
        ('create Pod failed: violates PodSecurity "restricted:latest": hostPath volumes', "PodRefused"),
    ],
)
def test_pods_that_are_refused_are_known_from_events_or_from_a_condition(note: str, reason: str) -> None:
    stateful = workload("StatefulSet", "demo-engine", ready=0, pods=0)
    snapshot = Snapshot(
        {("StatefulSet", "demo-engine"): stateful}, warnings=[event("StatefulSet", "demo-engine", "FailedCreate", note)]
    )
    found = workload_problem(snapshot, "StatefulSet", "demo-engine", labels("engine"))
    assert found is not None
    assert (found.reason, note in found.message) == (reason, True)

    deployed = workload("Deployment", "demo-orchestrator", ready=0, pods=0)
    deployed["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": note}]
    snapshot = Snapshot({("Deployment", "demo-orchestrator"): deployed})
    found = workload_problem(snapshot, "Deployment", "demo-orchestrator", labels("orchestrator"))
    assert found is not None
    assert found.reason == reason


def test_a_rollout_that_may_not_have_its_one_pod_more_says_so() -> None:
    deployed = workload("Deployment", "demo-sandbox-chem", updated=0)
    deployed["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}]
    snapshot = Snapshot(
        {("Deployment", "demo-sandbox-chem"): deployed}, pods=[pod("demo-sandbox-chem-a", "sandbox", "chem")]
    )
    found = workload_problem(snapshot, "Deployment", "demo-sandbox-chem", labels("sandbox", "chem"))
    assert found is not None
    assert found.reason == "QuotaExceeded"


def test_an_old_refusal_is_forgotten_when_the_pods_are_there() -> None:
    warnings = [event("StatefulSet", "demo-engine", "FailedCreate", "exceeded quota")]
    snapshot = Snapshot(
        {("StatefulSet", "demo-engine"): workload("StatefulSet", "demo-engine", ready=0)},
        pods=[pod("demo-engine-0", "engine", ready=False)],
        warnings=warnings,
    )
    assert workload_problem(snapshot, "StatefulSet", "demo-engine", labels("engine")) is None
