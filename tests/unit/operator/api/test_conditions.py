from __future__ import annotations

import pytest

from s1vl_operator.api.conditions import Condition, ConditionType, set_conditions
from s1vl_operator.api.reasons import Reason

OLD = "2026-01-01T00:00:00Z"
NOW = "2026-01-02T00:00:00Z"


def ready(status: str = "True", generation: int = 2) -> Condition:
    return Condition(ConditionType.READY, status, Reason.ALL_READY, "fine", generation)  # type: ignore[arg-type]


def test_a_new_condition_has_changed_now() -> None:
    assert set_conditions([], [ready()], NOW) == [
        {
            "type": "Ready",
            "status": "True",
            "reason": "AllReady",
            "message": "fine",
            "observedGeneration": 2,
            "lastTransitionTime": NOW,
        }
    ]


@pytest.mark.parametrize(("status", "time"), [("True", OLD), ("False", NOW), ("Unknown", NOW)])
def test_the_time_is_that_of_the_last_change_of_status(status: str, time: str) -> None:
    before = set_conditions([], [ready("True", 1)], OLD)
    assert set_conditions(before, [ready(status)], NOW)[0]["lastTransitionTime"] == time


def test_a_broken_old_condition_is_replaced() -> None:
    assert set_conditions([{"type": "Ready", "status": "True"}, {}], [ready()], NOW)[0]["lastTransitionTime"] == NOW


def test_types_that_are_gone_are_dropped() -> None:
    before = set_conditions([], [Condition(ConditionType.PROGRESSING, "True", Reason.STABLE, "", 1)], OLD)
    assert [c["type"] for c in set_conditions(before, [ready()], NOW)] == ["Ready"]
