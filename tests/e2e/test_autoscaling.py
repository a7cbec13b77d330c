"""The engine is scaled through the custom resource, by people and by the cluster's own autoscaler."""

from __future__ import annotations

from typing import Any

from hack.kube import wait_for
from tests.e2e.conftest import Space


def test_people_and_the_autoscaler_scale_the_engine_through_the_custom_resource(space: Space) -> None:
    autoscaling = {"min": 1, "max": 2, "waitingRequestsPerReplica": 5}
    space.apply_ready(space.deployment("chem", engine={"autoscaling": autoscaling}))
    kube = space.kube

    def able() -> dict[str, Any]:
        hpa = kube.get("hpa", "demo-engine", space.name)
        conditions = {c["type"]: c for c in hpa.get("status", {}).get("conditions", [])}
        return conditions["AbleToScale"]

    wait_for("the autoscaler to read the number", lambda: able()["status"] == "True", timeout=180)

    def engines(number: int) -> bool:
        """Whether everybody says so: the custom resource, the StatefulSet and the status."""
        cr = space.cr()
        stateful_set = kube.get("statefulset", "demo-engine", space.name)["spec"]["replicas"]
        said = (cr["spec"]["engine"]["replicas"], stateful_set, cr["status"]["replicas"], cr["status"]["engine"])
        assert said == (number, number, number, f"{number}/{number}"), said
        return True

    kube.kubectl("scale", "s1vl/demo", "--replicas=2", "-n", space.name)
    wait_for("two engines", lambda: engines(2), timeout=180)
    # Nobody measures requests here, but the autoscaler keeps to its bounds.
    kube.kubectl("scale", "s1vl/demo", "--replicas=3", "-n", space.name)
    wait_for("the autoscaler to take the third one back", lambda: able()["reason"] == "SucceededRescale", timeout=180)
    wait_for("two engines again", lambda: engines(2), timeout=180)
    kube.kubectl("scale", "s1vl/demo", "--replicas=1", "-n", space.name)
    wait_for("one engine", lambda: engines(1), timeout=180)
    space.wait_condition("Ready", "True")
