"""What an S1VLDeployment's events say, and when: on transitions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from s1vl_operator.api.conditions import ConditionType
from s1vl_operator.api.reasons import Nature, Reason

Manifest = dict[str, Any]

NOTE_MAX = 1000
"""The API takes 1024 bytes."""


class EventReason(StrEnum):
    """Reasons of events that are not a condition's."""

    APPLIED = "Applied"
    PRUNED = "Pruned"
    NOT_READY = "NotReady"
    RESTARTED = "Restarted"
    REPLACED = "Replaced"


@dataclass(frozen=True)
class Event:
    """One event about the custom resource.

    Attributes:
        type: Normal or Warning.
        reason: one word, a Reason or an EventReason.
        note: the text for people.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    note: str


def transitions(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Event]:
    """The events for what changed between two lists of conditions.

    The parts speak when their status or reason changes; Ready, which repeats the first of them, when it comes and goes.
    """
    old = {condition["type"]: condition for condition in before}
    events: list[Event] = []
    for condition in after:
        if condition["type"] in (ConditionType.RECONCILING, ConditionType.STALLED):
            continue  # they repeat Progressing
        was = old.get(condition["type"], {})
        status, reason, message = condition["status"], condition["reason"], condition["message"]
        if condition["type"] == ConditionType.READY:
            changed = was.get("status") != status and (status == "True" or was.get("status") == "True")
            event = Event("Normal", reason, message) if status == "True" else _not_ready(reason, message)
        else:
            changed = (was.get("status"), was.get("reason")) != (status, reason) and status != "Unknown"
            calm = status == "True" or _calm(reason)
            event = Event("Normal" if calm else "Warning", reason, message)
        if changed and event not in events:
            events.append(event)
    return events


def _not_ready(reason: str, message: str) -> Event:
    return Event("Normal" if _calm(reason) else "Warning", EventReason.NOT_READY, f"{reason}: {message}")


def _calm(reason: str) -> bool:
    """Whether nobody needs to be warned."""
    return Reason(reason).nature is not Nature.TROUBLE


def changes(
    created: list[str],
    changed: list[str],
    removed: list[str],
    restarted: Sequence[str] = (),
    replaced: Sequence[str] = (),
) -> list[Event]:
    """The events for what the operator did, with objects as `Kind/name`."""
    done = [("created", created), ("changed", changed)]
    texts = [f"{verb} {', '.join(objects)}" for verb, objects in done if objects]
    events = [Event("Normal", EventReason.APPLIED, "; ".join(texts))] if texts else []
    if removed:
        events.append(Event("Normal", EventReason.PRUNED, f"removed {', '.join(removed)}"))
    if replaced:
        note = f"replaced {', '.join(replaced)}, which cannot be changed in place; pods go on"
        events.append(Event("Normal", EventReason.REPLACED, note))
    if restarted:
        note = f"restarted {', '.join(restarted)}: it had requests and made no progress"
        events.append(Event("Warning", EventReason.RESTARTED, note))
    return events


def manifest(event: Event, cr: Manifest, *, name: str, time: str, instance: str) -> Manifest:
    """The Event object (events.k8s.io/v1) to create.

    Args:
        event: what to say.
        cr: the custom resource that it is about.
        name: unique name of the Event.
        time: RFC 3339 in UTC with microseconds.
        instance: the operator's pod.
    """
    metadata = cr["metadata"]
    encoded = event.note.encode()
    note = event.note if len(encoded) <= NOTE_MAX else encoded[: NOTE_MAX - 4].decode(errors="ignore") + " …"
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": metadata["namespace"]},
        "eventTime": time,
        "type": event.type,
        "reason": str(event.reason),
        "note": note,
        "action": "Reconcile",
        "reportingController": "s1vl.io/operator",
        "reportingInstance": instance[:128],
        "regarding": {
            "apiVersion": cr["apiVersion"],
            "kind": cr["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
    }
