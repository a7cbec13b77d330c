from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from s1vl_operator.observe import engines
from tests.unit.operator.observe.conftest import deployment, pod

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def engine(name: str = "demo-engine-0", created: str = "2026-01-01T00:00:00Z", **status: Any) -> dict[str, Any]:
    made = pod(name, "engine", ready=False, **status)
    made["metadata"]["creationTimestamp"] = created
    made["spec"] = {"containers": [{"name": "sidecar", "image": "other"}, {"name": "vllm", "image": "vllm:1"}]}
    return made


def container(started: bool = False, **state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "sidecar", "started": True}, {"name": "vllm", "started": started, **state}]}


def true(*conditions: str) -> list[dict[str, str]]:
    return [{"type": condition, "status": "True"} for condition in conditions]


RUNNING = {"state": {"running": {"startedAt": "2026-01-01T00:01:00Z"}}}
STAGES = {
    "new": ({}, "waits for a node"),
    "scheduled": ({"conditions": true("PodScheduled")}, "waits for its init containers"),
    "initialized": ({"conditions": true("PodScheduled", "Initialized")}, "waits for its volumes"),
    "mounted": (
        {"conditions": true("PodScheduled", "Initialized", "PodReadyToStartContainers")},
        "pulls its image vllm:1",
    ),
    "running": (
        {"conditions": true("PodScheduled", "Initialized", "PodReadyToStartContainers"), **container(**RUNNING)},
        "downloads or loads the model since 2026-01-01T00:01:00Z; it has 3600 s for that",
    ),
    "started": (
        {"conditions": true("PodScheduled"), **container(started=True, **RUNNING)},
        "has loaded the model and does not answer its health check",
    ),
}


@pytest.mark.parametrize(("status", "words"), STAGES.values(), ids=STAGES)
def test_how_far_it_has_come(status: dict[str, Any], words: str) -> None:
    assert engines.stage(engine(**status), 3600) == f"demo-engine-0 {words}"


def test_only_what_has_loaded_its_model_is_watched() -> None:
    loaded = engine("demo-engine-0", **container(started=True))
    leaving = engine("demo-engine-3", **container(started=True))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:02:00Z"
    nowhere = engine("demo-engine-4", **container(started=True), podIP="")
    pods = [leaving, nowhere, engine("demo-engine-2", **container()), engine("demo-engine-1"), loaded]
    of = engines.of(deployment(), [*pods, pod("demo-orchestrator-x", "orchestrator", **container(started=True))])
    assert [one["metadata"]["name"] for one in of] == [f"demo-engine-{n}" for n in (0, 1, 2, 4)]
    assert engines.started(of) == [loaded]


@pytest.mark.parametrize(
    ("created", "restarted"),
    [("2026-01-01T00:00:00Z", True), ("2026-01-01T11:50:00Z", True), ("2026-01-01T11:50:01Z", False)],
)
def test_a_young_one_is_not_restarted(created: str, restarted: bool) -> None:
    assert bool(engines.to_restart([engine(created=created)], NOW)) == restarted
