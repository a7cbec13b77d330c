"""A protocol of one's own, from a ConfigMap to the configuration of the orchestrator, and how it can be wrong."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.component.operator.conftest import World

OWN = {"protocolRef": {"name": "mine", "key": "p"}}


def write(world: World, text: str | None, key: str = "p") -> None:
    """Create or change the ConfigMap, as a person does; None removes it."""
    if text is None:
        return world.cluster.remove("ConfigMap", "n", "mine")
    metadata = {"name": "mine", "namespace": "n"}
    world.cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: text}})
    return None


def config(world: World) -> dict[str, Any]:
    text = world.cluster.get("ConfigMap", "demo-orchestrator")["data"]["config.yaml"]
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


async def test_its_text_is_used_and_changes_arrive(world: World) -> None:
    write(world, "name: one\n")
    world.cr("chem", orchestrator=OWN)
    await world.converge()
    assert config(world)["protocol"] == "name: one\n"
    assert world.condition("Ready")[:2] == ("True", "AllReady")
    assert await world.reconcile() == []
    tried = list(world.probe.tried)
    assert world.again == 30

    write(world, "name: two\n")
    assert ("apply", "ConfigMap", "demo-orchestrator") in await world.reconcile()
    assert config(world)["protocol"] == "name: two\n"
    assert world.probe.tried == [*tried, "name: two\n"]
    world.restart()
    assert await world.reconcile() == []
    assert world.probe.tried == [*tried, "name: two\n"], "what is in use is not tried again"


@pytest.mark.parametrize(
    ("text", "key", "reason", "said"),
    [
        (None, "p", "ProtocolNotFound", "there is no ConfigMap mine"),
        ("name: two\n", "q", "ProtocolNotFound", "the ConfigMap mine has no key p; it has q"),
        ("INVALID: two\n", "p", "ProtocolInvalid", "p of the ConfigMap mine: INVALID is no field"),
        ("x" * 65537, "p", "ProtocolInvalid", "has 65537 bytes, more than 65536"),
        ("", "p", "ProtocolInvalid", "is empty"),
    ],
)
async def test_one_that_breaks_is_told_and_the_last_stays_in_use(
    world: World, text: str | None, key: str, reason: str, said: str
) -> None:
    write(world, "name: one\n")
    world.cr("chem", orchestrator=OWN)
    await world.converge()
    before = world.cluster.get("ConfigMap", "demo-orchestrator")

    write(world, text, key)
    await world.reconcile()
    assert world.cluster.get("ConfigMap", "demo-orchestrator") == before
    assert world.condition("OrchestratorReady")[:2] == world.condition("Ready")[:2] == ("False", reason)
    message = world.condition("OrchestratorReady")[2]
    assert said in message
    assert "the last protocol stays in the configuration. " in message
    assert world.status()["tenantsReady"] == "1/1", "jobs are answered all the while"
    assert ("Warning", reason) in world.said()
    assert await world.reconcile() == []

    # The rest of the spec goes on being brought about.
    world.cr("chem", "bio", orchestrator=OWN)
    await world.converge()
    assert [tenant["name"] for tenant in config(world)["tenants"]] == ["chem", "bio"]
    assert config(world)["protocol"] == "name: one\n"
    assert world.condition("Ready")[:2] == ("False", reason)

    write(world, "name: three\n")
    await world.converge()
    assert config(world)["protocol"] == "name: three\n"
    assert world.condition("Ready")[:2] == ("True", "AllReady")


async def test_a_new_text_waits_for_an_orchestrator_to_try_it(world: World) -> None:
    write(world, "name: one\n")
    world.cr("chem", orchestrator=OWN)
    await world.converge()
    write(world, "INVALID: two\n")
    pod = world.cluster.get("Pod", "demo-orchestrator-0")
    world.cluster.remove("Pod", "n", "demo-orchestrator-0")
    await world.reconcile()
    assert config(world)["protocol"] == "name: one\n", "the pod that comes next must be able to start"
    assert world.condition("OrchestratorReady")[1] == "ConfigNotLoaded"

    # One that is not ready yet can try it all the same.
    pod["status"]["conditions"] = []
    world.cluster.put(pod)
    await world.reconcile()
    assert world.condition("OrchestratorReady")[1] == "ProtocolInvalid"
    write(world, "name: three\n")
    await world.converge()
    assert config(world)["protocol"] == "name: three\n"
    assert world.condition("Ready")[1] == "AllReady"


async def test_without_one_from_the_start_there_is_no_configuration_until_it_comes(world: World) -> None:
    world.cr("chem", orchestrator=OWN)
    await world.reconcile()
    assert "demo-orchestrator" not in world.cluster.names("ConfigMap")
    assert "demo-orchestrator" in world.cluster.names("Deployment")
    status, reason, message = world.condition("OrchestratorReady")
    assert (status, reason) == ("False", "ProtocolNotFound")
    assert "nobody is served until then. Create the ConfigMap" in message
    write(world, "name: one\n")
    await world.converge()
    assert world.condition("Ready")[:2] == ("True", "AllReady")


async def test_a_built_in_one_stays_in_use_until_the_own_one_is_there(world: World) -> None:
    world.cr("chem", orchestrator={"protocol": "thyme"})
    await world.converge()
    world.cr("chem", orchestrator=OWN)
    await world.reconcile()
    assert config(world)["protocol"] == "thyme"
    assert world.condition("Ready")[1] == "ProtocolNotFound"
    world.cr("chem")
    await world.converge()
    assert config(world)["protocol"] == "s1vl"
    assert world.condition("Ready")[1] == "AllReady"


async def test_a_persons_own_config_map_is_never_touched(world: World) -> None:
    write(world, "name: one\n")
    world.cluster.get("ConfigMap", "mine")["metadata"]["labels"] = {"s1vl.io/deployment": "demo"}
    world.cr("chem", orchestrator=OWN)
    await world.converge()
    before = world.cluster.get("ConfigMap", "mine")
    world.cr("chem")
    await world.converge()
    world.cluster.remove("S1VLDeployment", "n", "demo")
    assert world.cluster.get("ConfigMap", "mine") == before
    assert ("apply", "ConfigMap", "mine") not in world.cluster.writes


async def test_a_paused_resource_takes_no_new_one(world: World) -> None:
    write(world, "name: one\n")
    world.cr("chem", orchestrator=OWN)
    await world.converge()
    world.cr("chem", orchestrator=OWN, paused=True)
    write(world, "name: two\n")
    await world.reconcile()
    assert config(world)["protocol"] == "name: one\n"
    assert world.condition("Progressing")[1] == "Paused"
