"""The operator's leader dies, and the API server goes away: what runs goes on, and what changed is brought about."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hack.cluster.outage import without_api_server
from hack.demo import ask, picture
from hack.deploy import CHART, OPERATOR_NAMESPACE, RELEASE
from hack.kube import Kube, wait_for
from tests.e2e.conftest import Space
from tests.e2e.seen import Object

OPERATOR = "s1vl-operator"
"""The name of its Lease, and of its pods' label."""
POLICY = "demo-default-deny"
"""An object whose absence no pod notices."""
AWAY_SECONDS = 60


@pytest.fixture(scope="module")
def replicas(kube: Kube) -> Iterator[None]:
    """Two operators, while the tests of this module run."""
    where = (RELEASE, str(CHART), "-n", OPERATOR_NAMESPACE, "--reuse-values", "--wait", "--timeout", "180s")
    try:
        kube.helm("upgrade", *where, "--set", "operator.replicas=2")
        yield
    finally:
        kube.helm("upgrade", *where, "--set", "operator.replicas=1")


@pytest.fixture(scope="module")
def ready(shared_space: Space, replicas: None) -> Space:
    shared_space.apply_ready(shared_space.deployment("chem"))
    return shared_space


def operators(kube: Kube) -> list[Object]:
    return kube.list("pods", OPERATOR_NAMESPACE, f"app.kubernetes.io/name={OPERATOR}")


def leader(kube: Kube) -> str:
    """The pod that leads."""
    pods = {pod["metadata"]["name"] for pod in operators(kube) if not pod["metadata"].get("deletionTimestamp")}

    def holder() -> str:
        name = str(kube.get("lease", OPERATOR, OPERATOR_NAMESPACE)["spec"]["holderIdentity"])
        return name if name in pods else ""

    return wait_for("an operator that is there to lead", holder)


def test_a_leader_that_dies_is_followed(ready: Space, measured: Callable[[str], None]) -> None:
    kube = ready.kube
    first = leader(kube)
    began = time.monotonic()
    kube.kubectl("delete", "pod", first, "-n", OPERATOR_NAMESPACE, "--grace-period=0", "--force")
    kube.kubectl("delete", "networkpolicy", POLICY, "-n", ready.name)

    def follower() -> str:
        name = str(kube.get("lease", OPERATOR, OPERATOR_NAMESPACE)["spec"]["holderIdentity"])
        return name if name not in ("", first) else ""

    wait_for("another operator to lead", follower, every=0.1)
    leads = time.monotonic() - began
    wait_for("the policy to come back", lambda: kube.get("networkpolicy", POLICY, ready.name), every=0.1)
    works = time.monotonic() - began
    measured(f"operator.takeover: leader's pod deleted; another leads after {leads:.1f} s, works after {works:.1f} s")
    ready.wait_condition("Ready", "True")


def containers(kube: Kube, namespace: str) -> dict[tuple[str, str], int]:
    """How often each container was restarted, by the uid of its pod and its name."""
    pods = json.loads(kube.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
    return {
        (pod["metadata"]["uid"], status["name"]): status["restartCount"]
        for pod in pods
        for status in pod["status"]["containerStatuses"]
    }


@pytest.mark.skipif(
    os.environ.get("S1VL_CLUSTER", "local") != "local", reason="the control plane must be this machine's"
)
def test_jobs_are_answered_while_the_api_server_is_away_and_nothing_restarts(
    ready: Space, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    kube = ready.kube
    truth = picture.write(tmp_path / "field.png", seed=5)
    path = ready.put_image("chem", "field.png", (tmp_path / "field.png").read_bytes())
    key = ready.tenant_key("chem")
    [orchestrator] = ready.pods("app.kubernetes.io/component=orchestrator")
    url = f"http://{orchestrator['status']['podIP']}:10044"
    wait_for("both operators to be ready", lambda: len(operators(kube)) == 2 and leader(kube))
    before = [containers(kube, namespace) for namespace in (ready.name, OPERATOR_NAMESPACE)]
    transition = ready.wait_condition("Ready", "True")["lastTransitionTime"]

    answers: list[str] = []
    with without_api_server():
        over = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < over or not answers:
            answers.append(ask.ask(url, tmp_path / "field.png", path, api_key=key)["answer"])
    back = time.monotonic()
    assert all(truth.colour in answer for answer in answers)

    kube.kubectl("delete", "networkpolicy", POLICY, "-n", ready.name)
    wait_for("the policy to come back", lambda: kube.get("networkpolicy", POLICY, ready.name), every=0.1)
    mended = time.monotonic() - back
    assert ready.wait_condition("Ready", "True")["lastTransitionTime"] == transition, "it was ready all the time"

    kube.apply(ready.deployment("chem", "bio"))
    # The policy agent, which lets nobody reach a pod that it does not know, looks for the API server once a minute.
    ready.wait_condition("Ready", "True", timeout=300)
    measured(
        f"operator.outage: API server away for {AWAY_SECONDS} s; {len(answers)} jobs answered meanwhile; "
        f"what was deleted is back after {mended:.1f} s, a new tenant is ready after {time.monotonic() - back:.1f} s"
    )
    assert ready.cr()["status"]["tenantsReady"] == "2/2"
    after = [containers(kube, namespace) for namespace in (ready.name, OPERATOR_NAMESPACE)]
    assert before[1] == after[1]
    assert before[0].items() <= after[0].items(), "the new tenant's are more"
