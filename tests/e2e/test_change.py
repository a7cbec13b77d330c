"""What cannot be changed in place is replaced, and what runs goes on."""

from __future__ import annotations

import json

from hack.kube import wait_for
from tests.e2e.conftest import Space


def test_a_stateful_set_is_replaced_under_its_running_pod(space: Space) -> None:
    space.apply_ready(space.deployment("chem"))
    kube = space.kube
    (before,) = space.pods("app.kubernetes.io/component=engine")

    def pause(paused: bool) -> None:
        kube.kubectl(
            "patch", "s1vl", "demo", "-n", space.name, "--type=merge", "-p", json.dumps({"spec": {"paused": paused}})
        )

    pause(True)
    space.wait_condition("Progressing", "False", "Paused")
    found = kube.get("statefulset", "demo-engine", space.name)
    kube.kubectl("delete", "statefulset", "demo-engine", "-n", space.name, "--cascade=orphan")
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}
    older = {**found["spec"], "podManagementPolicy": "OrderedReady"}
    kube.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": older})
    wait_for(
        "the older one to have the pod",
        lambda: kube.get("statefulset", "demo-engine", space.name)["status"]["readyReplicas"],
    )
    uid = kube.get("statefulset", "demo-engine", space.name)["metadata"]["uid"]

    pause(False)

    def replaced() -> bool:
        new = kube.get("statefulset", "demo-engine", space.name)
        assert new["metadata"]["uid"] != uid
        assert new["spec"]["podManagementPolicy"] == "Parallel"
        return bool(new["status"]["readyReplicas"])

    wait_for("a new StatefulSet with the pod", replaced, timeout=180)
    space.wait_condition("Ready", "True")
    (after,) = space.pods("app.kubernetes.io/component=engine")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert [status["restartCount"] for status in after["status"]["containerStatuses"]] == [0]
