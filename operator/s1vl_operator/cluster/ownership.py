"""Whose an object is: only what is the custom resource's own is changed or removed."""

from __future__ import annotations

from s1vl_operator.cluster.kinds import Manifest
from s1vl_operator.cluster.outcome import Failure, Obstacle


def controller(found: Manifest) -> dict[str, str]:
    """The owner reference that controls an object; empty when nothing does."""
    references: list[dict[str, str]] = found["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), {})


def owned(found: Manifest, owner: str) -> bool:
    """Whether an object is controlled by the custom resource with that uid."""
    return controller(found).get("uid") == owner


def foreign(found: Manifest, manifest: Manifest, owner: str) -> Failure | None:
    """Why an existing object must not be taken over; None when it may be."""
    metadata, wanted = found["metadata"], manifest["metadata"]
    kind, name = manifest["kind"], wanted["name"]
    if metadata.get("deletionTimestamp"):
        return Failure(kind, name, Obstacle.GOING, "it is being deleted; waiting for it to be gone")
    holder = controller(found)
    if holder.get("uid") == owner and "ownerReferences" in wanted:
        return None
    ours = [metadata.get("labels", {}).get(k) == v for k, v in wanted["labels"].items()]
    if all(ours) and (not holder or "ownerReferences" not in wanted):
        return None
    if all(ours):
        return Failure(
            kind,
            name,
            Obstacle.GOING,
            "it belonged to an S1VLDeployment of this name that was deleted; waiting for it to be gone",
        )
    whose = f"{holder['kind']} {holder['name']}" if holder else "nothing that the operator made"
    return Failure(kind, name, Obstacle.TAKEN, f"it exists already and belongs to {whose}")
