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
        events: events of the namespace (events.k8s.io/v1) that may tell what no object says, where it was worth a look:
            all of type Warning, and every SuccessfulCreate of a StatefulSet.
        reports: the answers of the ready orchestrator pods, or of the others while none is ready.
        config_version: digest of the configuration that the orchestrator should work with.
        hindrance: why not everything desired was applied; None when it was.
        hung: names of the engine pods that have requests and make no progress.
        autoscaler: what keeps the engine's autoscaler from being made; "" when nothing does.
        protocol: why the configuration has another protocol than the spec asks for; None when it has that one.
    """

    objects: Mapping[tuple[str, str], Manifest]
    pods: Sequence[Manifest] = ()
    events: Sequence[Manifest] = ()
    reports: Sequence[Report] = ()
    config_version: str = ""
    hindrance: Hindrance | None = None
    autoscaler: str = ""
    protocol: Hindrance | None = None
    hung: frozenset[str] = frozenset()

    @property
    def serving(self) -> list[Report]:
        """Whose word of tenants counts: a pod that refuses the newest configuration goes on with the one before it."""
        answered = [r for r in self.reports if not r.error and r.config_version]
        return [r for r in answered if r.refusal or r.config_version == self.config_version]

    def pods_of(self, selector: Mapping[str, str], *, going: bool = False) -> list[Manifest]:
        """The pods with all these labels, by name: those that stay, or those on their way out."""
        found = [pod for pod in self.pods if selector.items() <= (pod["metadata"].get("labels") or {}).items()]
        chosen = (pod for pod in found if bool(pod["metadata"].get("deletionTimestamp")) == going)
        return sorted(chosen, key=lambda pod: str(pod["metadata"]["name"]))

    def warning(self, kind: str, about: Manifest, *reasons: str) -> str:
        """The text of the newest event about an object with one of these reasons; "" when there is none.

        An event that this trouble is over (SuccessfulCreate after FailedCreate) takes its place.
        """
        found = [event for event in self.events if event.get("reason") in reasons and _is_about(event, kind, about)]
        if not found:
            return ""
        newest = max(found, key=_time)
        over = [event for event in self.events if event.get("reason") == _OVER.get(newest["reason"])]
        if any(_is_about(event, kind, about) and _time(event) > _time(newest) for event in over):
            return ""
        return str(newest.get("note") or "")


@dataclass(frozen=True)
class Workload:
    """How far a StatefulSet or Deployment is.

    Attributes:
        exists: whether it is there at all.
        wanted: pods that it should have.
        pods: pods that it has.
        ready: pods that are ready and stay.
        unseen: its controller has not yet acted on the newest spec.
        behind: what is ready is about to go, because its controller has not yet acted on the newest spec.
        settled: every pod is made from the newest spec and ready.
    """

    exists: bool = False
    wanted: int = 0
    pods: int = 0
    ready: int = 0
    unseen: bool = False
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
        return cls(True, wanted, pods, 0 if behind else ready, unseen, behind, settled)


_OVER = {"FailedCreate": "SuccessfulCreate"}
"""What a controller tells when it can do again what it could not."""


def _is_about(event: Manifest, kind: str, about: Manifest) -> bool:
    regarding, metadata = event.get("regarding") or {}, about["metadata"]
    # By uid as well: events outlive their object, and a StatefulSet gives its pods the same names again.
    return (regarding.get("kind"), regarding.get("name"), regarding.get("uid")) == (
        kind,
        metadata["name"],
        metadata.get("uid"),
    )


def _time(event: Manifest) -> str:
    series = event.get("series") or {}
    # Both forms sort as text: RFC 3339 in UTC.
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    return str(next((t for t in times if t), event.get("metadata", {}).get("creationTimestamp") or ""))
