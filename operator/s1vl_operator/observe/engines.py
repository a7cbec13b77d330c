"""Engine pods: how far one has come on its way to its first answer, and which of those that hang may be restarted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import names
from s1vl_operator.observe.pods import condition
from s1vl_operator.observe.snapshot import Manifest, Snapshot

CONTAINER = "vllm"
RESTART_SECONDS = 600.0
"""A pod is restarted when it is at least so old: at most once in that time, whoever restarted it before."""


def of(deployment: S1VLDeployment, pods: Sequence[Manifest]) -> list[Manifest]:
    """The engine's pods, by name; those on their way out are left out."""
    return Snapshot(objects={}, pods=pods).pods_of(names.selector(deployment, "engine"))


def started(pods: Iterable[Manifest]) -> list[Manifest]:
    """Those that have passed their startup probe and have an address: the model is loaded, so requests make steps."""
    return [pod for pod in pods if _container(pod).get("started") is True and (pod.get("status") or {}).get("podIP")]


def to_restart(hung: Iterable[Manifest], now: datetime) -> list[Manifest]:
    """The hung pods that are old enough."""
    return [pod for pod in hung if (now - _created(pod)).total_seconds() >= RESTART_SECONDS]


def stage(pod: Manifest, startup_seconds: int) -> str:
    """How far a pod has come that is not ready and has no problem, for people.

    Args:
        pod: as the API server has it.
        startup_seconds: what the kubelet's startup probe grants the model to be loaded.
    """
    name = pod["metadata"]["name"]
    if condition(pod, "PodScheduled").get("status") != "True":
        return f"{name} waits for a node"
    container = _container(pod)
    if container.get("started"):
        return f"{name} has loaded the model and does not answer its health check"
    if since := ((container.get("state") or {}).get("running") or {}).get("startedAt"):
        return f"{name} downloads or loads the model since {since}; it has {startup_seconds} s for that"
    if condition(pod, "Initialized").get("status") != "True":
        return f"{name} waits for its init containers"
    if condition(pod, "PodReadyToStartContainers").get("status") == "True":
        return f"{name} pulls its image {_image(pod)}"
    return f"{name} waits for its volumes"


def _container(pod: Manifest) -> dict[str, Any]:
    found: list[dict[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or []
    return next((one for one in found if one.get("name") == CONTAINER), {})


def _image(pod: Manifest) -> str:
    return next((str(c.get("image")) for c in pod["spec"]["containers"] if c.get("name") == CONTAINER), "")


def _created(pod: Manifest) -> datetime:
    return datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).astimezone(UTC)
