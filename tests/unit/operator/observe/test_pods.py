"""What a pod's own status says about why it is not ready."""

from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator.observe.pods import pod_problem, unexplained, workload_problem
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


def lost(name: str = "demo-engine-0", **metadata: Any) -> dict[str, Any]:
    """A pod that was ready when its node was heard of last."""
    conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "ContainersReady")]
    running = container(state={"running": {}}, ready=True)
    one = pod(name, "engine", ready=False, conditions=conditions, **running)
    one["metadata"].update(metadata)
    one["spec"]["nodeName"] = "gpu-7"
    return one


def test_a_pod_whose_node_does_not_report() -> None:
    problem = pod_problem(Snapshot({}), lost())
    assert problem is not None
    assert (problem.reason, problem.message) == ("NodeLost", "demo-engine-0: its node gpu-7 does not report")
    # The kubelet says why when it is the one that takes Ready away, e.g. for a readiness gate.
    gated = lost()
    gated["status"]["conditions"][0]["reason"] = "ReadinessGatesNotReady"
    assert pod_problem(Snapshot({}), gated) is None


def test_a_pod_that_a_lost_node_keeps_holds_up_its_stateful_set_but_no_deployment() -> None:
    going = lost(deletionTimestamp="2026-01-01T00:00:00Z")
    refusal = [event("StatefulSet", "demo-engine", "FailedCreate", "exceeded quota")]
    stateful = {("StatefulSet", "demo-engine"): workload("StatefulSet", "demo-engine", ready=0)}
    snapshot = Snapshot(stateful, pods=[going], events=refusal)
    problem = workload_problem(snapshot, "StatefulSet", "demo-engine", labels("engine"))
    assert problem is not None
    assert problem.reason == "NodeLost"
    assert problem.message == "demo-engine-0: its node gpu-7 does not report, and keeps the pod, which is being deleted"

    deployed = {("Deployment", "demo-engine"): workload("Deployment", "demo-engine", ready=0)}
    assert workload_problem(Snapshot(deployed, pods=[going]), "Deployment", "demo-engine", labels("engine")) is None


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


def event(
    kind: str, name: str, reason: str, note: str, time: str = "2026-01-01T00:00:00Z", **about: str
) -> dict[str, Any]:
    regarding = {"kind": kind, "name": name, **about}
    return {"regarding": regarding, "reason": reason, "note": note, "deprecatedLastTimestamp": time}


def test_a_claim_that_is_pending_is_named_with_its_own_events() -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "demo-images"}, "status": {"phase": "Pending"}}
    one = pod("demo-engine-0", "engine", ready=False, **unscheduled("pod has unbound immediate PersistentVolumeClaims"))
    one["spec"] = {
        "volumes": [{"name": "tmp"}, {"name": "images", "persistentVolumeClaim": {"claimName": "demo-images"}}]
    }
    objects = {("PersistentVolumeClaim", "demo-images"): claim}
    events = [event("PersistentVolumeClaim", "demo-images", "ProvisioningFailed", 'storageclass "x" not found')]
    problem = pod_problem(Snapshot(objects, events=events), one)
    assert problem is not None
    assert problem.reason == "PVCPending"
    assert "demo-images" in problem.message
    assert 'storageclass "x" not found' in problem.message

    # While a volume is being made for a node that was chosen, the pod itself says nothing.
    one["status"]["conditions"] = []
    assert pod_problem(Snapshot(objects, events=events), one) == problem
    assert pod_problem(Snapshot(objects), one) is None
    claim["status"]["phase"] = "Bound"
    assert pod_problem(Snapshot(objects, events=events), one) is None


@pytest.mark.parametrize(
    "message",
    [
        '0/1 nodes are available: persistentvolumeclaim "mine" not found.',
        "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
        "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind.",
    ],
)
def test_a_claim_of_the_users_own_that_is_not_bound_or_not_there(message: str) -> None:
    problem = pod_problem(Snapshot({}), pod("demo-engine-0", "engine", ready=False, **unscheduled(message)))
    assert problem is not None
    assert (problem.reason, problem.message) == ("PVCPending", f"demo-engine-0: {message}")


def test_a_volume_that_cannot_be_mounted() -> None:
    one = pod("demo-engine-0", "engine", ready=False, **container(state=waiting("ContainerCreating")))
    events = [
        event("Pod", "demo-engine-0", "FailedMount", "old", "2026-01-01T00:00:00Z"),
        event("Pod", "demo-engine-0", "FailedMount", "mount failed: no such host", "2026-01-02T00:00:00Z"),
        event("Pod", "other", "FailedMount", "not ours", "2026-01-03T00:00:00Z"),
        event("Pod", "demo-engine-0", "FailedMount", "its predecessor's", "2026-01-03T00:00:00Z", uid="before"),
    ]
    problem = pod_problem(Snapshot({}, events=events), one)
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
        {("StatefulSet", "demo-engine"): stateful}, events=[event("StatefulSet", "demo-engine", "FailedCreate", note)]
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
    events = [event("StatefulSet", "demo-engine", "FailedCreate", "exceeded quota")]
    snapshot = Snapshot(
        {("StatefulSet", "demo-engine"): workload("StatefulSet", "demo-engine", ready=0)},
        pods=[pod("demo-engine-0", "engine", ready=False)],
        events=events,
    )
    assert workload_problem(snapshot, "StatefulSet", "demo-engine", labels("engine")) is None


@pytest.mark.parametrize(
    ("made", "holds"),
    [("2026-01-01T00:09:59Z", True), ("2026-01-01T00:10:00Z", True), ("2026-01-01T00:10:01Z", False)],
)
def test_a_refusal_is_over_when_a_pod_could_be_made_after_it(made: str, holds: bool) -> None:
    events = [
        event("StatefulSet", "demo-engine", "FailedCreate", "exceeded quota", "2026-01-01T00:10:00Z"),
        event("StatefulSet", "demo-engine", "SuccessfulCreate", "create Pod demo-engine-0 successful", made),
    ]
    objects = {("StatefulSet", "demo-engine"): workload("StatefulSet", "demo-engine", ready=0, pods=0)}
    found = workload_problem(Snapshot(objects, events=events), "StatefulSet", "demo-engine", labels("engine"))
    assert (found is not None) is holds


def begun(**status: Any) -> dict[str, Any]:
    """A pod with a node, and with what `status` says."""
    conditions = [{"type": "PodScheduled", "status": "True"}, *status.pop("conditions", [])]
    return pod("demo-engine-0", "engine", ready=False, conditions=conditions, **status)


UNEXPLAINED = {
    "ready": (pod("demo-engine-0", "engine"), [], False),
    "waits for a node": (pod("demo-engine-0", "engine", ready=False), [], True),
    "no node fits": (pod("demo-engine-0", "engine", ready=False, **unscheduled(SCHEDULER)), [], False),
    "waits for its volumes": (begun(), [], True),
    "cannot mount": (begun(), [event("Pod", "demo-engine-0", "FailedMount", "no such host")], False),
    "pulls its image": (begun(conditions=[{"type": "PodReadyToStartContainers", "status": "True"}]), [], False),
    "loads the model": (
        begun(**container(state={"running": {"startedAt": "2026-01-01T00:00:00Z"}}, ready=False)),
        [],
        False,
    ),
}


@pytest.mark.parametrize(("one", "events", "expected"), UNEXPLAINED.values(), ids=UNEXPLAINED)
def test_only_an_event_can_say_why_a_pod_does_not_begin(
    one: dict[str, Any], events: list[dict[str, Any]], expected: bool
) -> None:
    objects = {("StatefulSet", "demo-engine"): workload("StatefulSet", "demo-engine")}
    assert unexplained(Snapshot(objects, pods=[one], events=events)) is expected


def test_only_an_event_can_say_why_a_pod_is_missing() -> None:
    objects = {("StatefulSet", "demo-engine"): workload("StatefulSet", "demo-engine", 2, pods=1)}
    refusal = event("StatefulSet", "demo-engine", "FailedCreate", "exceeded quota")
    assert unexplained(Snapshot(objects, pods=[pod("demo-engine-0", "engine")]))
    assert not unexplained(Snapshot(objects, pods=[pod("demo-engine-0", "engine")], events=[refusal]))
