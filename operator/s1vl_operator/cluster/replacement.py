"""Objects with a field that cannot be changed in place: they make way, and are then made anew."""

from __future__ import annotations

from s1vl_operator.cluster.kinds import POD, Manifest, kind_of
from s1vl_operator.cluster.port import Cluster

_WITHOUT_PODS = frozenset({"Service", "RoleBinding"})


def replaceable(wanted: Manifest, found: Manifest) -> bool:
    """Whether an object can be removed and made anew without anything else being lost.

    A StatefulSet's pods go on without it and are its successor's, if that selects them. A Deployment's pods belong to
    ReplicaSets that its successor may not know again, so it is left to people; and so is what holds data.
    """
    if wanted["kind"] in _WITHOUT_PODS:
        return True
    if wanted["kind"] != "StatefulSet":
        return False
    labels = found["spec"]["template"]["metadata"].get("labels") or {}
    selector: dict[str, str] = wanted["spec"]["selector"]["matchLabels"]
    return selector.items() <= labels.items()


async def make_way(cluster: Cluster, wanted: Manifest, found: Manifest) -> bool:
    """Remove a replaceable object; returns whether it is gone at once.

    Raises:
        ApiError: as for `Cluster.delete`, and a 409 when a pod was changed at the same time.
        Unreachable: likewise.
    """
    kind, metadata = kind_of(found), found["metadata"]
    with_pods = found["kind"] == "StatefulSet"
    if with_pods:
        await _bequeath(cluster, wanted, found)
    await cluster.delete(kind, metadata["namespace"], metadata["name"], metadata["uid"], orphan=with_pods)
    return await cluster.read(kind, metadata["namespace"], metadata["name"]) is None


async def _bequeath(cluster: Cluster, wanted: Manifest, found: Manifest) -> None:
    """Let a StatefulSet's pods belong to the custom resource too: should that go now, they must not be left behind."""
    heir = {key: value for key, value in wanted["metadata"]["ownerReferences"][0].items() if key != "controller"}
    namespace, uid = found["metadata"]["namespace"], found["metadata"]["uid"]
    selector = ",".join(f"{key}={value}" for key, value in sorted(wanted["spec"]["selector"]["matchLabels"].items()))
    for pod in await cluster.list(POD, namespace, labels=selector):
        references = pod["metadata"].get("ownerReferences") or []
        uids = {reference["uid"] for reference in references}
        if uid in uids and heir["uid"] not in uids:
            only = {key: pod["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
            metadata = {**only, "ownerReferences": [*references, heir]}
            await cluster.merge({"apiVersion": POD.api_version, "kind": POD.kind, "metadata": metadata})
