"""Nobody who asks notices a change: no request fails or is answered wrongly while parts are replaced or added."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hack.deploy import CHART, OPERATOR_NAMESPACE, RELEASE, Deployed
from hack.kube import wait_for
from tests.e2e.conftest import Space
from tests.e2e.traffic import TENANTS, Traffic

SPEC: dict[str, Any] = {
    # Short, as pods that end get as much; long enough for every job on a slow machine.
    "orchestrator": {"replicas": 2, "deadlineSeconds": 120},
    "engine": {"replicas": 2, "drainTimeoutSeconds": 60},
}
_STATUS_OF = """
import sys, urllib.error, urllib.request
request = urllib.request.Request("http://127.0.0.1:10044/v1/models", headers={"X-API-Key": sys.argv[1]})
try:
    print(urllib.request.urlopen(request, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture(scope="module")
def traffic(deployed: Deployed, shared_space: Space, measured: Callable[[str], None]) -> Iterator[Traffic]:
    shared_space.apply_ready(shared_space.deployment(*TENANTS, **SPEC))
    traffic = Traffic(shared_space, deployed.images["s1vl"], lambda line: measured(f"traffic while {line}"))
    traffic.start()
    yield traffic
    traffic.stop()


@pytest.fixture(autouse=True)
def settled(traffic: Traffic) -> None:
    """What the test before changed has come to rest."""
    settle(traffic.space)


def settle(space: Space) -> None:
    space.wait_condition("Progressing", "False", "Stable")
    space.wait_condition("Ready", "True")


def uids(space: Space, selector: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in space.pods(selector)}


def roll(space: Space, workload: str, component: str) -> None:
    """Replace all pods of a workload, and wait until the old ones are gone."""
    selector = f"app.kubernetes.io/component={component}"
    before = uids(space, selector)
    space.kube.kubectl("rollout", "restart", workload, "-n", space.name)
    space.kube.kubectl("rollout", "status", workload, "-n", space.name, "--timeout=280s")
    wait_for(f"the old pods of {workload} to go", lambda: not before & uids(space, selector), timeout=180)


def evict(space: Space, pod: str) -> None:
    """What `kubectl drain` does to a pod: ask, and ask again where a disruption budget refuses."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": space.name},
    }
    path = f"/api/v1/namespaces/{space.name}/pods/{pod}/eviction"
    ask = ("create", "--raw", path, "-f", "-")
    wait_for(f"{pod} to be evicted", lambda: space.kube.kubectl(*ask, stdin=json.dumps(eviction)))


def drain(space: Space, selector: str) -> None:
    """Evict all pods, and wait until they are gone and replaced."""
    before = space.pods(selector)
    for pod in before:
        evict(space, pod["metadata"]["name"])
    old = {pod["metadata"]["uid"] for pod in before}

    def replaced() -> bool:
        now = uids(space, selector)
        return len(now) == len(old) and not now & old

    wait_for(f"other pods than {selector}", replaced, timeout=240)


def test_the_orchestrator_is_replaced(traffic: Traffic) -> None:
    with traffic.during("2 orchestrators are replaced"):
        roll(traffic.space, "deployment/demo-orchestrator", "orchestrator")


def test_the_engine_is_replaced(traffic: Traffic) -> None:
    with traffic.during("2 engines are replaced"):
        roll(traffic.space, "statefulset/demo-engine", "engine")


def test_the_chart_is_upgraded(traffic: Traffic) -> None:
    kube = traffic.space.kube
    values = ("upgrade", RELEASE, str(CHART), "-n", OPERATOR_NAMESPACE, "--reuse-values", "--wait", "--timeout", "180s")
    with traffic.during("the chart is upgraded, and back"):
        kube.helm(*values, "--set", "operator.podAnnotations.e2e=upgraded")
        kube.helm(*values, "--set", "operator.podAnnotations.e2e=null")


def test_tenants_come_and_go(traffic: Traffic) -> None:
    space = traffic.space
    with traffic.during("a tenant comes and goes"):
        space.apply_ready(space.deployment(*TENANTS, "geo", **SPEC))
        space.kube.apply(space.deployment(*TENANTS, **SPEC))
        wait_for("geo's sandbox to go", lambda: not space.pods("s1vl.io/tenant=geo"))


def test_a_tenants_only_sandbox_is_drained(traffic: Traffic) -> None:
    with traffic.during("a tenant's only sandbox is drained"):
        drain(traffic.space, "s1vl.io/tenant=bio")
        settle(traffic.space)


def test_two_sandboxes_are_drained_and_one_goes(traffic: Traffic) -> None:
    space = traffic.space
    chem = {"name": "chem", "sandbox": {"replicas": 2}}
    with traffic.during("a tenant gets a second sandbox"):
        space.kube.apply(space.deployment(chem, "bio", **SPEC))
        settle(space)
    with traffic.during("2 sandboxes of a tenant are drained"):
        drain(space, "s1vl.io/tenant=chem")
        settle(space)
    with traffic.during("a tenant keeps 1 sandbox of 2"):
        space.kube.apply(space.deployment(*TENANTS, **SPEC))
        wait_for("one to go", lambda: len(space.pods("s1vl.io/tenant=chem")) == 1, timeout=240)


def test_an_engine_of_two_goes_and_comes(traffic: Traffic) -> None:
    space = traffic.space
    engines = "app.kubernetes.io/component=engine"
    with traffic.during("1 engine of 2 goes, and comes"):
        space.kube.kubectl("scale", "s1vl", "demo", "--replicas=1", "-n", space.name)
        wait_for("one to go", lambda: len(space.pods(engines)) == 1, timeout=240)
        space.kube.kubectl("scale", "s1vl", "demo", "--replicas=2", "-n", space.name)
        settle(space)


def test_a_tenants_key_is_replaced(traffic: Traffic) -> None:
    space = traffic.space
    old, new = traffic.keys["chem"], secrets.token_urlsafe(32)

    def write(*keys: str) -> None:
        patch = json.dumps({"stringData": {"apiKey": "\n".join(keys)}})
        space.kube.kubectl("patch", "secret", "demo-tenant-chem", "-n", space.name, "--type=merge", "-p", patch)

    def wait_until(key: str, status: str) -> None:
        """All orchestrators answer a key with this status."""
        pods = [pod["metadata"]["name"] for pod in space.pods("app.kubernetes.io/component=orchestrator")]
        program = ("python3", "-c", _STATUS_OF, key)
        wait_for(f"{status}", lambda: {space.kube.exec(pod, space.name, *program).strip() for pod in pods} == {status})

    with traffic.during("a tenant's key is replaced"):
        write(old, new)
        wait_until(new, "200")
        traffic.move("chem", new)
        write(new)
        wait_until(old, "401")


def test_a_sandboxs_key_is_replaced(traffic: Traffic) -> None:
    space = traffic.space
    before = uids(space, "s1vl.io/tenant=bio")
    with traffic.during("a sandbox's key is replaced"):
        space.kube.kubectl("delete", "secret", "demo-sandbox-bio", "-n", space.name)
        wait_for("another pod", lambda: not before & uids(space, "s1vl.io/tenant=bio"), timeout=240)
        settle(space)
