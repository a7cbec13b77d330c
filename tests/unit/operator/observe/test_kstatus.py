"""What kstatus (Flux, kpt, Helm 4's --wait) and `kubectl wait` make of a status."""

from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator.api.crd import schema
from s1vl_operator.api.reasons import Reason
from s1vl_operator.api.v1alpha1 import InvalidSpec
from s1vl_operator.observe import Hindrance, Snapshot, invalid_status, status
from tests.unit.operator.observe.conftest import deployment, healthy, pod, report, workload

NOW = "2026-01-01T00:00:00Z"
GENERATION = 4
NO_GPU = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient nvidia.com/gpu"}]}


def kstatus(written: dict[str, Any], generation: int = GENERATION) -> str:
    """By cli-utils' pkg/kstatus/status: the generation, then Reconciling and Stalled in their order, then Ready."""
    if "observedGeneration" in written and written["observedGeneration"] != generation:
        return "InProgress"
    conditions = written.get("conditions", [])
    for one in conditions:
        if (one["type"], one["status"]) in (("Reconciling", "True"), ("Stalled", "True")):
            return {"Reconciling": "InProgress", "Stalled": "Failed"}[one["type"]]
    ready = next((one["status"] for one in conditions if one["type"] == "Ready"), "True")
    return "Current" if ready == "True" else "InProgress"


def two(ready: int, updated: int = 2, **more: Any) -> Snapshot:
    """Two engine pods, of which so many are ready and so many made from the newest spec."""
    pods = [pod(f"demo-engine-{n}", "engine", ready=n < ready, **more) for n in (0, 1)]
    return healthy(objects=[workload("StatefulSet", "demo-engine", 2, ready=ready, updated=updated)], pods=pods)


CASES = {
    "all is well": (two(2), "Current", "True"),
    "nothing is there yet": (Snapshot({}), "InProgress", "False"),
    "serves while its pods are replaced": (two(1, 1), "InProgress", "True"),
    "serves while a new pod cannot start": (two(1, 1, **NO_GPU), "InProgress", "True"),
    "an object is refused, e.g. by a quota": (
        healthy(hindrance=Hindrance(Reason.APPLY_FAILED, "Service x: no")),
        "InProgress",
        "False",
    ),
    "an object is being deleted": (
        healthy(hindrance=Hindrance(Reason.RECONCILING, "Service x: going")),
        "InProgress",
        "False",
    ),
    "KEDA may still be installed": (healthy(autoscaler="no keda.sh/v1alpha1"), "InProgress", "True"),
    "a name is taken": (healthy(hindrance=Hindrance(Reason.NAME_TAKEN, "Service x: taken")), "Failed", "False"),
    "a field cannot be changed": (
        healthy(hindrance=Hindrance(Reason.IMMUTABLE_FIELD, "Service x: no")),
        "Failed",
        "False",
    ),
    "paused": (healthy(hindrance=Hindrance(Reason.PAUSED, "spec.paused is true")), "Current", "True"),
    "the paths do not agree": (
        healthy(reports=[report("chem", chem=("CanaryMismatch", False, "no"))]),
        "InProgress",
        "False",
    ),
}


@pytest.mark.parametrize(("snapshot", "expected", "ready"), CASES.values(), ids=CASES)
def test_tools_that_wait_agree(snapshot: Snapshot, expected: str, ready: str) -> None:
    replicas = snapshot.objects.get(("StatefulSet", "demo-engine"), {"spec": {"replicas": 1}})["spec"]["replicas"]
    found = status(deployment(engine={"replicas": replicas}), snapshot, NOW)
    assert kstatus(found) == expected
    by_type = {one["type"]: one for one in found["conditions"]}
    assert by_type["Ready"]["status"] == ready
    assert {one["observedGeneration"] for one in found["conditions"]} == {GENERATION}
    # Never both, and never without what Progressing says.
    also = [one for kind, one in by_type.items() if kind in ("Reconciling", "Stalled")]
    assert [(one["reason"], one["message"]) for one in also] in (
        [],
        [(by_type["Progressing"]["reason"], by_type["Progressing"]["message"])],
    )


def test_an_invalid_spec_has_failed() -> None:
    cr = {"metadata": {"name": "demo", "namespace": "n", "generation": 9}}
    assert kstatus(invalid_status(cr, InvalidSpec("spec.engine.gpus", "must be 1"), NOW), 9) == "Failed"


def test_a_change_that_has_not_been_seen_is_in_progress() -> None:
    assert kstatus(status(deployment(), healthy(), NOW), GENERATION + 1) == "InProgress"


def test_a_new_one_that_has_not_been_seen_is_in_progress() -> None:
    assert kstatus(schema()["properties"]["status"]["default"], 1) == "InProgress"
