"""What a change of each field does to what runs, held against what api.changes says of it."""

from __future__ import annotations

import pytest

from s1vl_operator.api.changes import CHANGES, Effect, change
from s1vl_operator.desired import Manifest
from tests.unit.operator.api.samples import SAMPLES, around, fields
from tests.unit.operator.desired.conftest import state

FIELDS = sorted(fields())
OF_THE_OPERATOR = {"spec.engine.stallTimeoutSeconds", "spec.paused"}
"""Fields that the operator itself goes by."""
OF_ITS_CONTEXT = {
    "spec.orchestrator.protocol",
    "spec.orchestrator.protocolRef.name",
    "spec.orchestrator.protocolRef.key",
}
"""Fields that are looked up first."""
PODS = {
    "engine": {"demo-engine"},
    "orchestrator": {"demo-orchestrator"},
    "sandboxes": {"demo-sandbox-chem", "demo-sandbox-bio"},
    "the tenant's sandbox": {"demo-sandbox-chem"},
}


def templates(made: dict[str, Manifest]) -> dict[str, Manifest]:
    """The pod template of each workload, by its name."""
    return {m["metadata"]["name"]: m["spec"]["template"] for m in made.values() if "template" in m.get("spec", {})}


def test_every_field_has_a_class_and_values_to_change_it() -> None:
    assert set(FIELDS) == SAMPLES.keys(), "say in tests/unit/operator/api/samples.py to what values it can be changed"
    for field in FIELDS:
        assert change(field), field


def test_no_class_is_of_a_field_that_is_no_more() -> None:
    for path in CHANGES:
        assert [field for field in FIELDS if field.startswith(path)], path


@pytest.mark.parametrize("path", ["spec.more", "spec.pausedOnce", "spec", "status.url"])
def test_a_field_that_nobody_has_thought_of_has_no_class(path: str) -> None:
    with pytest.raises(LookupError, match=path):
        change(path)


@pytest.mark.parametrize("path", FIELDS)
def test_a_change_rolls_what_it_is_said_to_roll(path: str) -> None:
    before, after = (state(spec) for spec in around(path))
    old, new = templates(before), templates(after)
    rolled = {name for name in old.keys() & new.keys() if old[name] != new[name]}
    come_and_gone = old.keys() ^ new.keys()
    match change(path).effect:
        case Effect.LIVE:
            assert (rolled, come_and_gone) == (set(), set())
            assert (before != after) is (path not in OF_THE_OPERATOR | OF_ITS_CONTEXT)
        case Effect.ROLLING:
            assert rolled == set().union(*(PODS[pods] for pods in change(path).pods))
            assert come_and_gone == set()
        case Effect.RECREATE:
            assert rolled == set()
            assert come_and_gone == {"demo-sandbox-chem", "demo-sandbox-physics"}
        case Effect.IMMUTABLE:
            assert before != after, "tests/api has it refused by the API server"


def test_the_annotation_restarts_every_pod_and_changes_nothing_else() -> None:
    spec = {"engine": {"podTemplate": {"metadata": {"annotations": {"mine": "1"}}}}}
    before, after = state(spec, other="x"), state(spec, other="x", restartedAt="once")
    assert {name for name in before if before[name] != after[name]} == {
        name for name, made in before.items() if "template" in made.get("spec", {})
    }
    for name, template in templates(after).items():
        old = templates(before)[name]
        annotations = {**old["metadata"].get("annotations", {}), "s1vl.io/restartedAt": "once"}
        assert template == {**old, "metadata": {**old["metadata"], "annotations": annotations}}
    assert templates(after)["demo-engine"]["metadata"]["annotations"]["mine"] == "1"
