"""What a change of each field does to what runs: nothing to its pods, a rollout, a replacement, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s1vl_operator.api.described import Described

Pods = Literal["engine", "orchestrator", "sandboxes", "the tenant's sandbox"]


class Effect(Described):
    """The classes of fields; the text after each is its documentation."""

    LIVE = "live", "No pod is restarted."
    ROLLING = "rolling", "The pods that are named are replaced, as a rollout of their workload."
    RECREATE = "recreate", "Objects are removed and others made in their place."
    IMMUTABLE = "immutable", "The API server refuses the change."


@dataclass(frozen=True)
class Change:
    """What changing a field does.

    Attributes:
        effect: its class.
        pods: whose pods are replaced; only of `rolling`.
    """

    effect: Effect
    pods: tuple[Pods, ...] = ()

    def __str__(self) -> str:
        """As the reference says it, e.g. `rolling: engine`."""
        return f"{self.effect}: {', '.join(self.pods)}" if self.pods else str(self.effect)


LIVE, RECREATE, IMMUTABLE = Change(Effect.LIVE), Change(Effect.RECREATE), Change(Effect.IMMUTABLE)


def _rolling(*pods: Pods) -> Change:
    return Change(Effect.ROLLING, pods)


CHANGES: dict[str, Change] = {
    "spec.model": _rolling("engine"),
    "spec.model.cache": IMMUTABLE,
    "spec.model.cache.size": LIVE,
    "spec.engine": _rolling("engine"),
    "spec.engine.replicas": LIVE,
    "spec.engine.autoscaling": LIVE,
    "spec.engine.stallTimeoutSeconds": LIVE,
    "spec.images.clientPath": LIVE,
    "spec.images.sandboxPath": _rolling("sandboxes"),
    "spec.images.volume": IMMUTABLE,
    "spec.images.volume.size": LIVE,
    "spec.images.retention": LIVE,
    "spec.sandbox": _rolling("sandboxes"),
    "spec.sandbox.replicas": LIVE,
    "spec.sandbox.idleTimeoutSeconds": LIVE,
    "spec.sandbox.executionTimeoutSeconds": LIVE,
    "spec.orchestrator": LIVE,
    "spec.orchestrator.port": _rolling("orchestrator"),
    "spec.orchestrator.deadlineSeconds": _rolling("orchestrator", "sandboxes"),
    "spec.orchestrator.resources": _rolling("orchestrator"),
    "spec.orchestrator.podTemplate": _rolling("orchestrator"),
    "spec.tenants": LIVE,
    "spec.tenants[].name": RECREATE,
    "spec.tenants[].subPath": _rolling("the tenant's sandbox"),
    "spec.tenants[].sandbox": _rolling("the tenant's sandbox"),
    "spec.tenants[].sandbox.replicas": LIVE,
    "spec.tenants[].sandbox.idleTimeoutSeconds": LIVE,
    "spec.networkPolicy": LIVE,
    "spec.paused": LIVE,
}
"""By path; the longest that a field is, or lies in, decides."""


def change(path: str) -> Change:
    """What changing the field at a path such as `spec.tenants[].limits.queuedRequests` does.

    Raises:
        LookupError: nobody has said.
    """
    found = [known for known in CHANGES if path == known or path.startswith((f"{known}.", f"{known}["))]
    if not found:
        raise LookupError(f"api.changes does not say what a change of {path} does")
    return CHANGES[max(found, key=len)]
