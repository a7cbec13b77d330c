"""The tenants' sandbox pods: where each can be reached."""

from __future__ import annotations

from collections.abc import Sequence

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import PodAddress, names
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


def _reachable(pod: Manifest) -> bool:
    status = pod.get("status") or {}
    # A pod that has ended, an evicted one say, keeps an address that another may have by now.
    return bool(status.get("podIP")) and status.get("phase") not in ("Succeeded", "Failed")
