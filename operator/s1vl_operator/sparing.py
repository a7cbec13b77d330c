"""Where a sandbox is to have fewer pods, those with the fewest sessions go."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.cluster.kinds import Manifest
from s1vl_operator.cluster.port import ApiError, Cluster
from s1vl_operator.desired import names
from s1vl_operator.observe import Report, Snapshot
from s1vl_operator.observe.pods import pod_url

logger = logging.getLogger(__name__)

COST = "controller.kubernetes.io/pod-deletion-cost"
"""Annotation of a pod: of those that are ready, a ReplicaSet deletes the ones with the lowest number first."""


def shrinking(
    deployment: S1VLDeployment, desired: Iterable[Manifest], observed: Mapping[tuple[str, str], Manifest]
) -> list[str]:
    """Tenants whose sandboxes keep some of their pods, and have more now."""
    wanted = {m["metadata"]["name"]: m["spec"]["replicas"] for m in desired if _is_sandbox(m)}
    now = {tenant.name: names.sandbox(deployment, tenant.name) for tenant in deployment.spec.tenants}
    return [
        tenant
        for tenant, name in now.items()
        if (found := observed.get(("Deployment", name))) and 0 < wanted[name] < found["spec"].get("replicas", 1)
    ]


def costs(
    deployment: S1VLDeployment, tenants: Iterable[str], pods: Sequence[Manifest], reports: Sequence[Report]
) -> list[Manifest]:
    """Patches that say of each pod how many sessions the orchestrators have there; none where it says so already."""
    made = []
    for tenant in tenants:
        known = [report.tenants[tenant].sessions for report in reports if tenant in report.tenants]
        for pod in Snapshot(objects={}, pods=pods).pods_of(names.selector(deployment, "sandbox", tenant)):
            address = pod_url(pod, deployment.spec.sandbox.port).removeprefix("http://")
            cost = str(sum(sessions.get(address, 0) for sessions in known))
            if (pod["metadata"].get("annotations") or {}).get(COST, "0") != cost:
                made.append(_annotated(pod, cost))
    return made


async def spare(cluster: Cluster, patches: Iterable[Manifest]) -> None:
    """Send the patches; where that fails, some other pod may go, and it drains as well."""
    for patch in patches:
        try:
            await cluster.merge(patch)
        except ApiError as error:
            logger.warning("Cannot say what the pod %s costs: %s", patch["metadata"]["name"], error)


def _is_sandbox(manifest: Manifest) -> bool:
    labels: dict[str, str] = manifest["metadata"]["labels"]
    return manifest["kind"] == "Deployment" and labels.get(names.COMPONENT_LABEL) == "sandbox"


def _annotated(pod: Manifest, cost: str) -> Manifest:
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "annotations": {COST: cost}}}
