"""Deletion, whenever it comes, leaves nothing but claims."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from s1vl_operator.cluster.port import ApiError
from tests.component.operator.conftest import World
from tests.component.operator.fake import FakeCluster

ASKS = ("read", "list", "create", "apply", "merge", "delete", "apply_status")


class KilledError(Exception):
    """The operator's end."""


class Interrupted(FakeCluster):
    """Does something before its n-th request."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0
        self.at = -1
        self.then: Callable[[], None] = lambda: None
        for name in ASKS:
            setattr(self, name, self._counting(getattr(self, name)))

    def _counting(self, ask: Callable[..., Any]) -> Callable[..., Any]:
        async def asked(*args: Any, **kwargs: Any) -> Any:
            self.requests += 1
            if self.requests == self.at:
                self.then()
            return await ask(*args, **kwargs)

        return asked


PHASES = ("first", "tenant leaves", "restart", "tenants fall asleep")
SLEEPY = {"idleTimeoutSeconds": 60}


async def prepare(phase: str) -> World:
    """A cluster in which the next reconciliation has something to do."""
    world = World(cluster=Interrupted())
    world.cluster.keda = True
    engine = {
        "autoscaling": {"provider": "keda", "max": 3, "runningRequestsPerReplica": 8, "prometheusAddress": "http://p"}
    }
    orchestrator = {"autoscaling": {"max": 3}}
    world.cr("chem", "bio", engine=engine, orchestrator=orchestrator, sandbox=SLEEPY)
    if phase == "first":
        return world
    await world.converge()
    if phase == "tenant leaves":
        world.cr("chem", orchestrator={"replicas": 2}, sandbox=SLEEPY)
    elif phase == "restart":
        world.cluster.get("S1VLDeployment", "demo")["metadata"]["annotations"] = {"s1vl.io/restartedAt": "now"}
    else:
        world.cr("chem", "bio", engine={"replicas": 2, "port": 9300}, sandbox=SLEEPY)
    if phase == "tenants fall asleep":
        world.seconds += 3600
    return world


def counted(world: World) -> Interrupted:
    assert isinstance(world.cluster, Interrupted)
    return world.cluster


def copied(world: World) -> World:
    """The same world once more, with an operator that has just begun."""
    old, new = world.cluster, Interrupted()
    new.objects, new._applied = copy.deepcopy((old.objects, old._applied))
    new._version, new.keda = old._version, old.keda
    return World(cluster=new, seconds=world.seconds)


@pytest.mark.parametrize("crash", [False, True], ids=["the operator goes on", "the operator dies too"])
@pytest.mark.parametrize("phase", PHASES)
async def test_deleted_before_any_request_only_claims_are_left(phase: str, crash: bool) -> None:
    prepared = await prepare(phase)
    undisturbed = copied(prepared)
    await undisturbed.reconcile()
    for at in range(1, counted(undisturbed).requests + 1):
        world = copied(prepared)
        cluster = counted(world)

        def delete(world: World = world) -> None:
            world.cluster.remove("S1VLDeployment", "n", "demo")
            world.probe.silent = True
            if crash:
                raise KilledError

        cluster.at, cluster.then = at, delete
        try:
            await world.reconcile()
        except KilledError:
            world.restart()
        except ApiError as error:
            assert error.status == 404, "the status has nothing to be written to"
        cluster.run_workloads()
        assert await world.reconcile() == [], "a resource that is gone needs nothing"
        cluster.collect_garbage()
        assert {kind for kind, _, _ in cluster.objects} <= {"PersistentVolumeClaim"}, (at, cluster.objects.keys())
