"""Why a pod, or a whole workload, does not get ready: in the words of the scheduler, the kubelet and the container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from s1vl_operator.api.reasons import Reason
from s1vl_operator.observe.snapshot import Manifest, Snapshot, Workload

LAST_WORDS = 400
"""Characters of a container's last words that are shown."""

RECENT = 60.0
"""Seconds by which a container's end may be earlier than the unreadiness that it brought about."""

EX_CONFIG = 78
"""Exit code of our sandbox where it lacks an isolation that is required of it."""

SANDBOX_CONTAINERS = frozenset({"sandbox", "kernels"})

_PULL = frozenset(
    {
        "ImagePullBackOff",
        "ErrImagePull",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"})
_CLAIM_WORDS = ("persistentvolumeclaim", "persistent volumes to bind")
"""What the scheduler's messages about claims that are unbound or not there have in common, in lower case."""


@dataclass(frozen=True)
class Problem:
    """What keeps a pod from being ready; one that only needs time is none."""

    reason: Reason
    message: str


def is_ready(pod: Manifest) -> bool:
    """Whether the pod counts as ready."""
    return condition(pod, "Ready").get("status") == "True"


def pod_url(pod: Manifest, port: int) -> str:
    """Where a pod serves HTTP; "" while it has no address."""
    address = str((pod.get("status") or {}).get("podIP") or "")
    return f"http://{f'[{address}]' if ':' in address else address}:{port}" if address else ""


def workload_problem(snapshot: Snapshot, kind: str, name: str, selector: Mapping[str, str]) -> Problem | None:
    """The first problem of a workload's pods, or why it has none; None when it only needs time.

    Args:
        snapshot: one look at the cluster.
        kind: StatefulSet or Deployment.
        name: of the workload.
        selector: labels of its pods.
    """
    pods, going = snapshot.pods_of(selector), snapshot.pods_of(selector, going=True)
    for pod in pods:
        if not is_ready(pod) and (problem := pod_problem(snapshot, pod)):
            return problem
    found = snapshot.objects.get((kind, name))
    if found is None:
        return None
    few = len(pods) < found["spec"].get("replicas", 1)
    # A StatefulSet's pod has its name to itself: the next one comes when the one before it is gone.
    if few and kind == "StatefulSet" and going:
        return next((_lost(pod) for pod in going if is_lost(pod)), None)
    # An event stays when what it told of is over, the condition goes. It may be about the one pod more of a rollout.
    refusal = _replica_failure(found) or (snapshot.warning(kind, found, "FailedCreate") if few else "")
    return _refused(f"{kind} {name}: {refusal}") if refusal else None


def unexplained(snapshot: Snapshot) -> bool:
    """Whether a pod is missing or does not begin to start, and nothing says why: an event may soon."""
    for (kind, _), found in snapshot.objects.items():
        missing = kind == "StatefulSet" and Workload.of(found).pods < found["spec"].get("replicas", 1)
        if missing and not snapshot.warning(kind, found, "FailedCreate"):
            return True
    staying = [pod for pod in snapshot.pods_of({}) if not is_ready(pod)]
    return any(not _has_begun(pod) and pod_problem(snapshot, pod) is None for pod in staying)


def pod_problem(snapshot: Snapshot, pod: Manifest) -> Problem | None:
    """What is wrong with a pod that is not ready; None when it only needs time."""
    name = pod["metadata"]["name"]
    if is_lost(pod):
        return _lost(pod)
    if condition(pod, "PodScheduled").get("status") != "True" and (problem := _unscheduled(snapshot, pod)):
        return problem
    for container, is_init in _containers(pod):
        if problem := _container_problem(container, is_init) or _recent_end(pod, container, is_init):
            return Problem(problem.reason, f"{name}: {problem.message}")
    if pod.get("status", {}).get("phase") == "Failed":
        # Evicted, or refused by the kubelet: there is no container that could tell.
        status = pod["status"]
        return Problem(
            Reason.POD_REFUSED, f"{name}: {status.get('reason') or 'Failed'}: {status.get('message') or 'no message'}"
        )
    stuck = snapshot.warning("Pod", pod, "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
    return Problem(Reason.CONTAINER_CONFIG_ERROR, f"{name}: {stuck}") if stuck and not _has_begun(pod) else None


def is_lost(pod: Manifest) -> bool:
    """Whether the node of a pod that was ready does not report.

    The node controller then takes Ready from its pods and leaves all else as the kubelet said it last; the kubelet
    gives a reason whenever it is the one that takes it.
    """
    ready = condition(pod, "Ready")
    return (
        ready.get("status") == "False"
        and not ready.get("reason")
        and condition(pod, "ContainersReady").get("status") == "True"
    )


def _lost(pod: Manifest) -> Problem:
    name, node = pod["metadata"]["name"], (pod.get("spec") or {}).get("nodeName") or "unknown"
    stuck = ", and keeps the pod, which is being deleted" if pod["metadata"].get("deletionTimestamp") else ""
    return Problem(Reason.NODE_LOST, f"{name}: its node {node} does not report{stuck}")


def _has_begun(pod: Manifest) -> bool:
    """Whether its volumes and network are there, so that only its containers are to start."""
    if condition(pod, "PodReadyToStartContainers").get("status") == "True":
        return True
    return any(container.get("state", {}).get("running") for container, _ in _containers(pod))


def _unscheduled(snapshot: Snapshot, pod: Manifest) -> Problem | None:
    name, scheduled = pod["metadata"]["name"], condition(pod, "PodScheduled")
    refusal = str(scheduled.get("message") or "no node fits") if scheduled.get("status") == "False" else ""
    about_claims = any(word in refusal.lower() for word in _CLAIM_WORDS)
    for claim in _claims(snapshot, pod):
        why = snapshot.warning("PersistentVolumeClaim", claim, "ProvisioningFailed", "FailedBinding")
        # While a volume is being made for a chosen node, the scheduler says nothing.
        if (claim.get("status") or {}).get("phase") == "Pending" and (about_claims or (why and not refusal)):
            text = f"{name} waits for the claim {claim['metadata']['name']}: {why or refusal}"
            return Problem(Reason.PVC_PENDING, text)
    if about_claims:
        return Problem(Reason.PVC_PENDING, f"{name}: {refusal}")
    return Problem(Reason.UNSCHEDULABLE, f"{name}: {refusal}") if refusal else None


def _claims(snapshot: Snapshot, pod: Manifest) -> Iterator[Manifest]:
    """Those of the deployment's own claims that a pod needs."""
    for volume in (pod.get("spec") or {}).get("volumes") or []:
        name = str((volume.get("persistentVolumeClaim") or {}).get("claimName") or "")
        if found := snapshot.objects.get(("PersistentVolumeClaim", name)):
            yield found


def _containers(pod: Manifest) -> Iterator[tuple[dict[str, Any], bool]]:
    status = pod.get("status", {})
    for container in status.get("initContainerStatuses") or []:
        yield container, True
    for container in status.get("containerStatuses") or []:
        yield container, False


def _container_problem(container: dict[str, Any], is_init: bool) -> Problem | None:
    name, state = container["name"], container.get("state") or {}
    waiting = state.get("waiting") or {}
    if waiting.get("reason") in _PULL:
        # The kubelet alternates between two texts, one of which counts seconds; the image says enough.
        image = container.get("image") or "its image"
        return Problem(Reason.IMAGE_PULL_BACK_OFF, f"container {name}: cannot pull {image}")
    if waiting.get("reason") in _CONFIG:
        message = waiting.get("message") or waiting["reason"]
        return Problem(Reason.CONTAINER_CONFIG_ERROR, f"container {name}: {message}")
    if container.get("ready") or (is_init and (state.get("terminated") or {}).get("exitCode") == 0):
        return None
    # Between two runs the last one is in `state`, afterwards in `lastState`: one and the same trouble.
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    clean = ended.get("exitCode") == 0 and waiting.get("reason") != "CrashLoopBackOff"
    return _end(name, ended, is_init) if ended and not clean else None


def _recent_end(pod: Manifest, container: dict[str, Any], is_init: bool) -> Problem | None:
    """The end of a container that runs again, where it may be why the pod is not ready.

    A container without a probe counts as ready at once, while the pod's other one still waits for it.
    """
    ended = (container.get("lastState") or {}).get("terminated") or {}
    finished, unready = _seconds(ended.get("finishedAt")), _seconds(condition(pod, "Ready").get("lastTransitionTime"))
    if is_init or not container.get("ready") or not ended.get("exitCode") or finished is None or unready is None:
        return None
    return _end(container["name"], ended, is_init) if finished >= unready - RECENT else None


def _seconds(time: Any) -> float | None:
    return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else None


def _end(name: str, ended: dict[str, Any], is_init: bool) -> Problem:
    if ended.get("reason") == "OOMKilled":
        return Problem(Reason.OOM_KILLED, f"container {name} was killed at its memory limit")
    words = " ".join(str(ended.get("message") or "").split())[-LAST_WORDS:]
    said = f"ended with exit code {ended.get('exitCode')}" + (f": {words}" if words else "")
    if ended.get("exitCode") == EX_CONFIG and name in SANDBOX_CONTAINERS:
        return Problem(
            Reason.ISOLATION_MISSING,
            f"container {name} refuses to start: {words or 'no message'}; requireIsolation is strict",
        )
    if is_init and name == "storage-init":
        return Problem(Reason.STORAGE_INIT_FAILED, f"storage-init {said}")
    return Problem(Reason.CRASH_LOOP_BACK_OFF, f"container {name} {said}")


def _refused(message: str) -> Problem:
    return Problem(Reason.QUOTA_EXCEEDED if "exceeded quota" in message else Reason.POD_REFUSED, message)


def _replica_failure(found: Manifest) -> str:
    failure = condition(found, "ReplicaFailure")
    return str(failure.get("message") or "") if failure.get("status") == "True" else ""


def condition(found: Manifest, kind: str) -> dict[str, Any]:
    """An object's condition of a type; {} when it has none."""
    conditions: list[dict[str, Any]] = (found.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), {})
