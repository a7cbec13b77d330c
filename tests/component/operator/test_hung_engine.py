"""An engine pod that has requests and makes no progress."""

from __future__ import annotations

import pytest
import yaml

from s1vl_operator.desired import orchestrator
from tests.component.operator.conftest import World

KEY = ("n", "demo")


def hung_pods(world: World) -> list[str]:
    text = world.cluster.get("ConfigMap", "demo-orchestrator")["data"]["pods.yaml"]
    found: list[str] = yaml.safe_load(text)["engine"]["hung"]
    return found


def hang(world: World, name: str) -> None:
    world.health.hung = frozenset({world.cluster.get("Pod", name)["metadata"]["uid"]})


async def test_each_engine_pod_that_has_started_is_watched(world: World) -> None:
    world.cr("chem", engine={"replicas": 2, "stallTimeoutSeconds": 60, "port": 9300})
    await world.converge()
    assert [(pod.url, pod.timeout) for pod in world.health.watched[KEY]] == [("http://10.0.0.1:9300", 60)] * 2
    world.cluster.remove("S1VLDeployment", "n", "demo")
    await world.reconcile()
    assert world.health.watched[KEY] == []


async def test_it_gets_no_requests_and_is_restarted_once_it_is_old_enough(world: World) -> None:
    world.cr("chem")
    await world.converge()
    world.seconds = 590
    hang(world, "demo-engine-0")
    await world.converge()
    assert world.condition("EngineReady")[:2] == world.condition("Ready")[:2] == ("False", "EngineStalled")
    assert hung_pods(world) == ["10.0.0.1"]
    assert ("Warning", "EngineStalled") in world.said()
    assert ("Warning", "Restarted") not in world.said()

    world.seconds = 600
    uid = world.cluster.get("Pod", "demo-engine-0")["metadata"]["uid"]
    assert ("delete", "Pod", "demo-engine-0") in await world.reconcile()
    assert ("Warning", "Restarted") in world.said()

    # The StatefulSet's controller makes another, which is another pod to the watch as well.
    world.cluster.run_workloads()
    assert world.cluster.get("Pod", "demo-engine-0")["metadata"]["uid"] != uid
    await world.converge()
    assert hung_pods(world) == []
    assert world.condition("Ready")[:2] == ("True", "AllReady")


async def test_one_that_goes_on_gets_requests_again(world: World) -> None:
    world.cr("chem", engine={"replicas": 2})
    await world.converge()
    hang(world, "demo-engine-1")
    await world.converge()
    assert world.condition("EngineReady")[:2] == ("True", "EngineDegraded")
    assert world.condition("Ready")[0] == "True"
    world.health.hung = frozenset()
    await world.converge()
    assert hung_pods(world) == []
    assert world.condition("EngineReady")[:2] == ("True", "EngineReady")


async def test_nothing_is_restarted_while_the_deployment_is_paused(world: World) -> None:
    world.cr("chem")
    await world.converge()
    world.cr("chem", paused=True)
    world.seconds = 1000
    hang(world, "demo-engine-0")
    assert ("delete", "Pod", "demo-engine-0") not in await world.reconcile()
    assert world.condition("EngineReady")[:2] == ("False", "EngineStalled")


async def test_what_was_hung_for_another_operator_is_not_trusted_at_once_nor_restarted(world: World) -> None:
    world.cr("chem", engine={"replicas": 2})
    await world.converge()
    hang(world, "demo-engine-1")
    await world.converge()
    world.health.hung, world.health.suspected = frozenset(), world.health.hung
    world.seconds = 1000
    assert ("delete", "Pod", "demo-engine-1") not in await world.reconcile()
    assert all(pod.suspected for pod in world.health.watched[KEY]), "they have one address here"
    assert hung_pods(world) == ["10.0.0.1"]
    assert world.condition("EngineReady")[:2] == ("True", "EngineDegraded")
    world.health.suspected = frozenset()
    await world.converge()
    assert hung_pods(world) == []
    assert world.condition("EngineReady")[:2] == ("True", "EngineReady")


@pytest.mark.parametrize("text", ["", "[", "7", "engine: 7", "engine: {hung: 7}", "engine: {hung: [[7]]}"])
def test_a_spoilt_text_names_no_hung_engine(text: str) -> None:
    assert orchestrator.told_hung(text) == frozenset()
