"""The number of pods changes hands: from the manifest to an autoscaler, without falling to 1 in between."""

from __future__ import annotations

from s1vl_operator.cluster.kinds import Manifest
from s1vl_operator.cluster.port import FIELD_MANAGER


def left_replicas(wanted: Manifest, found: Manifest) -> Manifest | None:
    """A manifest of nothing but the number of pods that `wanted` no longer says; None when nobody would miss it.

    A field that its only owner stops applying is removed, and `replicas` is then 1. So another manager takes the number
    as it is, before ours lets go; from there an autoscaler, which writes another one, takes it over.
    """
    if wanted["kind"] != "Deployment" or "replicas" in wanted["spec"] or not _ours(found):
        return None
    metadata = {key: wanted["metadata"][key] for key in ("name", "namespace")}
    return {
        "apiVersion": wanted["apiVersion"],
        "kind": wanted["kind"],
        "metadata": metadata,
        "spec": {"replicas": found["spec"]["replicas"]},
    }


def _ours(found: Manifest) -> bool:
    """Whether we are an owner of the number of pods."""
    return any(
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in (entry.get("fieldsV1") or {}).get("f:spec", {})
        for entry in found["metadata"].get("managedFields") or []
    )
