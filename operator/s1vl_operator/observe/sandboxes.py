"""The tenants' sandboxes: where their pods can be reached, and which of them nobody has asked for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import PodAddress, names, sandbox
from s1vl_operator.observe.snapshot import Manifest, Snapshot


def addresses(deployment: S1VLDeployment, pods: Sequence[Manifest]) -> dict[str, tuple[PodAddress, ...]]:
    """The pods of every tenant of the spec that have an address and are to stay, by name.

    They need not be ready: the orchestrator tries each before it sends a job there, and is sooner than the kubelet.
    """
    snapshot = Snapshot(objects={}, pods=pods)
    return {
        tenant.name: tuple(
            PodAddress(pod["metadata"]["name"], pod["status"]["podIP"])
            for pod in snapshot.pods_of(names.selector(deployment, "sandbox", tenant.name))
            if _reachable(pod)
        )
        for tenant in deployment.spec.tenants
    }


def until_sleep(
    deployment: S1VLDeployment, objects: Mapping[tuple[str, str], Manifest], now: datetime, settled: datetime
) -> dict[str, float]:
    """Seconds until each sandbox falls asleep if nobody asks, of the tenants whose sandboxes do; from 0 on it sleeps.

    Args:
        deployment: the custom resource.
        objects: has the tenants' Leases and Deployments, by (kind, name). A Lease begins with its creation.
        now: in UTC.
        settled: until then no sandbox that is awake falls asleep.
    """
    found = {}
    for tenant in deployment.spec.tenants:
        if seconds := sandbox.idle_timeout(deployment, tenant):
            lease = objects.get(("Lease", names.lease(deployment, tenant.name)))
            left = seconds - (now - last_activity(lease)).total_seconds() if lease else float(seconds)
            workload = objects.get(("Deployment", names.sandbox(deployment, tenant.name)))
            awake = workload is not None and workload["spec"].get("replicas") != 0
            found[tenant.name] = max(left, (settled - now).total_seconds()) if awake else left
    return found


def last_activity(lease: Manifest) -> datetime:
    """When a tenant's Lease was renewed last, or made."""
    times = (lease["metadata"]["creationTimestamp"], (lease.get("spec") or {}).get("renewTime"))
    return max(datetime.fromisoformat(time).astimezone(UTC) for time in times if time)


def _reachable(pod: Manifest) -> bool:
    status = pod.get("status") or {}
    # A pod that has ended, an evicted one say, keeps an address that another may have by now.
    return bool(status.get("podIP")) and status.get("phase") not in ("Succeeded", "Failed")
