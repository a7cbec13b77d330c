"""Conditions of an S1VLDeployment's status, by the Kubernetes API conventions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from s1vl_operator.api.described import Described
from s1vl_operator.api.reasons import Reason

Status = Literal["True", "False", "Unknown"]


class ConditionType(Described):
    """What the status speaks about; the text after each is its documentation."""

    READY = "Ready", "Clients are served: engine, orchestrator, all sandboxes and all paths are in order."
    ENGINE_READY = "EngineReady", "At least one engine pod answers (none is wanted: also true)."
    ORCHESTRATOR_READY = "OrchestratorReady", "The orchestrator answers and has the current configuration."
    SANDBOXES_READY = "SandboxesReady", "Every tenant's sandbox runs code."
    PATHS_CONSISTENT = (
        "PathsConsistent",
        "A file that the orchestrator wrote for each tenant was read by that tenant's sandbox.",
    )
    PROGRESSING = "Progressing", "The cluster is on its way to what the spec says."
    RECONCILING = (
        "Reconciling",
        "What the spec says has not come about yet; there only while it is true, for kstatus: in progress.",
    )
    STALLED = (
        "Stalled",
        "What the spec says cannot come about unless somebody changes something; there only while it is true, for "
        "kstatus: failed.",
    )


@dataclass(frozen=True)
class Condition:
    """One condition without its time, which is only decided against what was there before."""

    type: ConditionType
    status: Status
    reason: Reason
    message: str
    observed_generation: int


def set_conditions(existing: list[dict[str, Any]], new: Iterable[Condition], now: str) -> list[dict[str, Any]]:
    """The conditions to write: `new` in its order, each with the time of its last change of status.

    Args:
        existing: what the status had, on the wire's form.
        new: what is true now; types that are not in it are dropped.
        now: RFC 3339 time in UTC, e.g. 2026-01-31T12:00:00Z.
    """
    before = {condition.get("type"): condition for condition in existing}
    written = []
    for condition in new:
        old = before.get(condition.type.value, {})
        same = old.get("status") == condition.status and old.get("lastTransitionTime")
        written.append(
            {
                "type": condition.type.value,
                "status": condition.status,
                "reason": condition.reason.value,
                "message": condition.message,
                "observedGeneration": condition.observed_generation,
                "lastTransitionTime": old["lastTransitionTime"] if same else now,
            }
        )
    return written
