"""Which transitions are worth an event, and what it looks like on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator.events import Event, changes, manifest, transitions

Conditions = list[dict[str, Any]]


def conditions(**states: tuple[str, str]) -> Conditions:
    return [
        {"type": kind, "status": status, "reason": reason, "message": f"{kind} text"}
        for kind, (status, reason) in states.items()
    ]


STARTING = conditions(
    Ready=("False", "EngineStarting"),
    EngineReady=("False", "EngineStarting"),
    PathsConsistent=("Unknown", "NotChecked"),
)
FINE = conditions(
    Ready=("True", "AllReady"), EngineReady=("True", "EngineReady"), PathsConsistent=("True", "PathsConsistent")
)
BROKEN = conditions(
    Ready=("False", "OOMKilled"), EngineReady=("False", "OOMKilled"), PathsConsistent=("True", "PathsConsistent")
)
INVALID = conditions(Ready=("False", "InvalidSpec"), Progressing=("False", "InvalidSpec"))


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        ([], STARTING, [("Normal", "EngineStarting")]),
        (STARTING, STARTING, []),
        (STARTING, FINE, [("Normal", "AllReady"), ("Normal", "EngineReady"), ("Normal", "PathsConsistent")]),
        (FINE, FINE, []),
        (FINE, BROKEN, [("Warning", "NotReady"), ("Warning", "OOMKilled")]),
        (BROKEN, BROKEN, []),
        (BROKEN, STARTING, [("Normal", "EngineStarting")]),
        ([], INVALID, [("Warning", "InvalidSpec")]),
    ],
)
def test_transitions(before: Conditions, after: Conditions, events: list[tuple[str, str]]) -> None:
    assert [(event.type, str(event.reason)) for event in transitions(before, after)] == events


def test_another_message_alone_is_no_event() -> None:
    other = [{**condition, "message": "another"} for condition in BROKEN]
    assert transitions(BROKEN, other) == []


def test_what_was_done() -> None:
    assert changes([], [], []) == []
    found = changes(["Service/a", "Secret/b"], ["ConfigMap/c"], ["StatefulSet/d"])
    assert [(str(e.reason), e.note) for e in found] == [
        ("Applied", "created Service/a, Secret/b; changed ConfigMap/c"),
        ("Pruned", "removed StatefulSet/d"),
    ]


@pytest.mark.parametrize("note", ["short", "x" * 5000, "ü" * 5000])
def test_the_wire_form_keeps_the_limits(note: str) -> None:
    cr = {
        "apiVersion": "s1vl.io/v1alpha1",
        "kind": "S1VLDeployment",
        "metadata": {"name": "demo", "namespace": "n", "uid": "u"},
    }
    found = manifest(
        Event("Normal", "Applied", note), cr, name="demo.1", time="2026-01-01T00:00:00.000000Z", instance="p" * 300
    )
    assert len(found["note"].encode()) <= 1024
    assert found["note"].startswith(note[:5])
    assert len(found["reportingInstance"]) == 128
    assert found["regarding"]["uid"] == "u"
