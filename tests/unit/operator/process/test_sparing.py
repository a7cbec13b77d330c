from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator import sparing
from s1vl_operator.observe import Report, parse_report
from tests.unit.operator.observe.conftest import deployment, pod, workload


def sandbox(tenant: str, replicas: int) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": "sandbox", "s1vl.io/tenant": tenant}
    metadata = {"name": f"demo-sandbox-{tenant}", "labels": labels}
    return {"kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}}


def sessions(name: str, **by_address: int) -> Report:
    """What an orchestrator pod says; `a1` stands for the address 10.0.0.1."""
    paths = {"consistent": True, "reason": "PathsConsistent", "message": ""}
    pods = [{"address": f"10.0.0.{key[1:]}:8080", "sessions": count} for key, count in by_address.items()]
    tenant = {"name": "chem", "ready": True, "reason": "Ready", "message": "", "paths": paths, "sandboxes": pods}
    return parse_report(name, {"configVersion": "x", "engine": {"ready": True}, "tenants": [tenant]})


@pytest.mark.parametrize(
    ("now", "wanted", "found"),
    [(3, 2, ["chem"]), (2, 2, []), (1, 2, []), (2, 0, []), (0, 2, []), (None, 1, [])],
)
def test_only_a_sandbox_that_keeps_some_of_its_pods_shrinks(now: int | None, wanted: int, found: list[str]) -> None:
    observed = (
        {} if now is None else {("Deployment", "demo-sandbox-chem"): workload("Deployment", "demo-sandbox-chem", now)}
    )
    assert sparing.shrinking(deployment("chem"), [sandbox("chem", wanted)], observed) == found


def test_each_pod_costs_what_all_the_orchestrators_have_there() -> None:
    pods = [pod(f"c-{n}", "sandbox", "chem", podIP=f"10.0.0.{n}") for n in (1, 2, 3, 4)]
    for one in pods:
        one["metadata"]["namespace"] = "n"
    pods[2]["metadata"]["annotations"] = {sparing.COST: "3"}
    pods[3]["metadata"]["annotations"] = {sparing.COST: "7"}
    made = sparing.costs(deployment("chem"), ["chem"], pods, [sessions("x", a1=1, a3=3), sessions("y", a1=1)])
    assert [(one["metadata"]["name"], one["metadata"]["annotations"][sparing.COST]) for one in made] == [
        ("c-1", "2"),
        ("c-4", "0"),
    ]
    assert made[0]["kind"] == "Pod"


def test_an_address_of_six_is_known_as_it_stands_in_a_url() -> None:
    one = pod("c-1", "sandbox", "chem", podIP="fd00::1")
    one["metadata"]["namespace"] = "n"
    said = parse_report(
        "x",
        {
            "configVersion": "x",
            "engine": {"ready": True},
            "tenants": [
                {
                    "name": "chem",
                    "ready": True,
                    "reason": "Ready",
                    "paths": {"consistent": True, "reason": "PathsConsistent"},
                    "sandboxes": [{"address": "[fd00::1]:8080", "sessions": 2}],
                }
            ],
        },
    )
    (made,) = sparing.costs(deployment("chem"), ["chem"], [one], [said])
    assert made["metadata"]["annotations"] == {sparing.COST: "2"}
