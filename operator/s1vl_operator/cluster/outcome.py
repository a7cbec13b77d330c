"""What came of an attempt to bring objects about."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from s1vl_operator.cluster.kinds import Manifest


class Obstacle(StrEnum):
    """Why an object could not be brought to what is desired."""

    REFUSED = "Refused"
    IMMUTABLE = "Immutable"
    TAKEN = "Taken"
    GOING = "Going"


@dataclass(frozen=True)
class Failure:
    """One object that could not be applied, with a message for people."""

    kind: str
    name: str
    obstacle: Obstacle
    message: str


@dataclass
class Result:
    """What was done, as `Kind/name`, and what could not be done."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    """What is in the cluster now, by (kind, name), of what is desired."""
