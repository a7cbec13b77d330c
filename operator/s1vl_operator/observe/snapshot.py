"""Everything that one look at the cluster brought, in the form in which the checks ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s1vl_operator.api.reasons import Reason
from s1vl_operator.observe.report import Report

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Hindrance:
    """Why the desired state could not be brought about.

    Attributes:
        reason: e.g. ApplyFailed, ImmutableField, NameTaken, Paused.
        message: what and why, for people.
    """

    reason: Reason
    message: str


@dataclass(frozen=True)
class Snapshot:
    """One look at the cluster.

    Attributes:
        objects: the deployment's objects by (kind, name), without pods.
        pods: the deployment's pods.
        warnings: the namespace's Warning events (events.k8s.io/v1), where it was worth looking.
        reports: the answers of the ready orchestrator pods, or of the others while none is ready.
        config_version: digest of the configuration that the orchestrator should work with.
        hindrance: why not everything desired was applied; None when it was.
        hung: names of the engine pods that have requests and make no progress.
        autoscaler: what keeps the engine's autoscaler from being made; "" when nothing does.
        protocol: why the configuration has another protocol than the spec asks for; None when it has that one.
    """

    objects: Mapping[tuple[str, str], Manifest]
    pods: Sequence[Manifest] = ()
    warnings: Sequence[Manifest] = ()
    reports: Sequence[Report] = ()
    config_version: str = ""
    hindrance: Hindrance | None = None
    autoscaler: str = ""
    protocol: Hindrance | None = None
    hung: frozenset[str] = frozenset()

    def pods_of(self, selector: Mapping[str, str]) -> list[Manifest]:
        """The pods with all these labels, by name; those on their way out are left out."""
        found = [pod for pod in self.pods if selector.items() <= (pod["metadata"].get("labels") or {}).items()]
        return sorted(
            (p for p in found if not p["metadata"].get("deletionTimestamp")), key=lambda p: str(p["metadata"]["name"])
        )

    def warning(self, kind: str, name: str, *reasons: str) -> str:
        """The text of the newest Warning event about an object with one of these reasons; "" when there is none."""
        about = [
            event
            for event in self.warnings
            if event.get("reason") in reasons
            and (event.get("regarding") or {}).get("kind") == kind
            and (event.get("regarding") or {}).get("name") == name
        ]
        return str(max(about, key=_time).get("note") or "") if about else ""


@dataclass(frozen=True)
class Workload:
    """How far a StatefulSet or Deployment is.

    Attributes:
        exists: whether it is there at all.
        wanted: pods that it should have.
        pods: pods that it has.
        ready: pods that are ready and stay.
        behind: what is ready is about to go, because its controller has not yet acted on the newest spec.
        settled: every pod is made from the newest spec and ready.
    """

    exists: bool = False
    wanted: int = 0
    pods: int = 0
    ready: int = 0
    behind: bool = False
    settled: bool = False

    @classmethod
    def of(cls, found: Manifest | None) -> Workload:
        """The progress that an object's status shows."""
        if found is None:
            return cls()
        status = found.get("status") or {}
        wanted = int(found["spec"].get("replicas", 1))
        pods, updated = int(status.get("replicas") or 0), int(status.get("updatedReplicas") or 0)
        ready = int(status.get("readyReplicas") or 0)
        unseen = int(status.get("observedGeneration") or 0) < int(found["metadata"].get("generation") or 0)
        # A StatefulSet's only pod goes before its successor comes: while it is outdated it is as good as gone.
        last = found["kind"] == "StatefulSet" and wanted == 1 and updated == 0
        behind = ready > 0 and (unseen or last)
        settled = not unseen and updated >= wanted and pods == wanted and ready >= wanted
        return cls(True, wanted, pods, 0 if behind else ready, behind, settled)


def _time(event: Manifest) -> str:
    series = event.get("series") or {}
    # Both forms sort as text: RFC 3339 in UTC.
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    return str(next((t for t in times if t), event.get("metadata", {}).get("creationTimestamp") or ""))
