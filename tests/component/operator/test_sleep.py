"""Sandboxes that nobody asks for have no pods, until somebody asks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.component.operator.conftest import World

IDLE = {"idleTimeoutSeconds": 300}


def replicas(world: World, tenant: str) -> int:
    count: int = world.cluster.get("Deployment", f"demo-sandbox-{tenant}")["spec"]["replicas"]
    return count


def tenants(world: World) -> dict[str, tuple[bool, str]]:
    return {tenant["name"]: (tenant["ready"], tenant["reason"]) for tenant in world.status()["tenants"]}


def without_events(writes: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return [write for write in writes if write[1] != "Event"]


async def test_a_sandbox_falls_asleep_and_wakes(world: World) -> None:
    world.cr("chem", "bio", sandbox={**IDLE, "replicas": 2})
    await world.converge()
    assert world.cluster.names("Lease") == ["demo-tenant-bio", "demo-tenant-chem"]
    assert (replicas(world, "chem"), world.again) == (2, 30)
    world.seconds = 290
    world.ask("bio")
    assert await world.reconcile() == []
    assert world.again == 10, "when the first falls asleep"

    world.seconds = 300
    assert ("apply", "Deployment", "demo-sandbox-chem") in await world.reconcile()
    await world.converge()
    assert (replicas(world, "chem"), replicas(world, "bio")) == (0, 2)
    assert tenants(world) == {"chem": (True, "SandboxAsleep"), "bio": (True, "Ready")}
    assert world.condition("Ready")[:2] == ("True", "AllReady")
    assert world.condition("SandboxesReady")[0] == world.condition("PathsConsistent")[0] == "True"
    assert world.condition("Progressing")[:2] == ("False", "Stable")
    assert "1 asleep" in world.condition("PathsConsistent")[2]
    assert "PodDisruptionBudget" in {kind for kind, _, name in world.cluster.objects if name == "demo-sandbox-chem"}
    world.restart()
    assert await world.reconcile() == [], "an operator that is new agrees"

    world.ask("chem")
    writes = without_events(await world.reconcile())
    assert writes[0] == ("apply", "Deployment", "demo-sandbox-chem"), "before anything else"
    assert replicas(world, "chem") == 2
    assert tenants(world)["chem"] == (True, "SandboxWaking")
    assert world.condition("Ready")[0] == "True"
    assert world.condition("Progressing")[0] == "True"
    await world.converge()
    assert tenants(world)["chem"] == (True, "Ready")
    assert "asleep" not in world.condition("PathsConsistent")[2]


async def fall_asleep(world: World) -> None:
    """Make a deployment of one tenant, and let nobody ask for its sandbox for long enough."""
    world.cr("chem", sandbox=IDLE)
    await world.converge()
    world.seconds = 300
    await world.converge()


async def test_ready_is_told_of_a_waking_sandbox_for_a_minute_only(world: World) -> None:
    await fall_asleep(world)
    world.ask("chem")
    await world.reconcile()
    world.cluster.run_workloads()
    pod = world.cluster.get("Pod", "demo-sandbox-chem-0")
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    deployed = world.cluster.get("Deployment", "demo-sandbox-chem")
    deployed["status"]["readyReplicas"] = 0
    await world.reconcile()
    assert tenants(world)["chem"] == (True, "SandboxWaking")
    world.seconds += 61
    await world.reconcile()
    assert tenants(world)["chem"] == (False, "SandboxStarting")
    assert world.condition("Ready")[:2] == ("False", "SandboxesStarting")


async def test_a_waking_sandbox_that_cannot_start_says_why(world: World) -> None:
    await fall_asleep(world)
    world.ask("chem")
    await world.reconcile()
    deployed = world.cluster.get("Deployment", "demo-sandbox-chem")
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
    deployed["status"] = {**deployed["status"], "conditions": [failure]}
    await world.reconcile()
    assert tenants(world)["chem"] == (False, "QuotaExceeded")


async def test_wrong_paths_are_told_while_a_sandbox_wakes(world: World) -> None:
    await fall_asleep(world)
    world.ask("chem")
    world.probe.wrong = {"chem": "not the same"}
    await world.converge()
    assert world.condition("PathsConsistent")[:2] == ("False", "CanaryMismatch")
    assert tenants(world)["chem"] == (False, "PathsInconsistent")


@pytest.mark.parametrize(
    ("everybody", "own", "leases"),
    [
        ({}, {}, []),
        (IDLE, {"idleTimeoutSeconds": 0}, ["demo-tenant-bio"]),
        ({}, {"idleTimeoutSeconds": 30}, ["demo-tenant-chem"]),
    ],
)
async def test_only_sandboxes_that_may_sleep_have_a_lease(
    world: World, everybody: dict[str, Any], own: dict[str, Any], leases: list[str]
) -> None:
    world.cr({"name": "chem", "sandbox": own}, "bio", sandbox=everybody)
    await world.converge()
    assert world.cluster.names("Lease") == leases


async def test_a_sandbox_that_may_not_sleep_any_more_wakes(world: World) -> None:
    await fall_asleep(world)
    assert replicas(world, "chem") == 0
    world.cr("chem")
    await world.converge()
    assert (replicas(world, "chem"), world.cluster.names("Lease")) == (1, [])
    assert tenants(world)["chem"] == (True, "Ready")


async def test_the_first_start_is_no_waking(world: World) -> None:
    world.cr("chem", sandbox=IDLE)
    await world.reconcile()
    assert tenants(world)["chem"] == (False, "SandboxStarting")
    assert world.condition("Ready")[0] == "False"


async def test_renewals_change_nothing(world: World) -> None:
    world.cr("chem", sandbox=IDLE)
    await world.converge()
    for _ in range(40):
        world.seconds += 10
        world.ask("chem")
        assert await world.reconcile() == []
    assert replicas(world, "chem") == 1
