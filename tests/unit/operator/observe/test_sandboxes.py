from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s1vl_operator.desired import PodAddress
from s1vl_operator.observe import sandboxes
from tests.unit.operator.observe.conftest import deployment, pod


def test_addresses_are_those_of_pods_that_stay_and_have_one() -> None:
    going = pod("c-3", "sandbox", "chem")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    pods = [
        pod("c-2", "sandbox", "chem", podIP="fd00::5"),
        pod("c-1", "sandbox", "chem", ready=False, podIP="10.0.0.1"),
        going,
        pod("c-4", "sandbox", "chem", podIP=None),
        pod("c-5", "sandbox", "chem", phase="Failed"),
        pod("o-1", "sandbox", "other"),
        pod("e-1", "engine"),
    ]
    assert sandboxes.addresses(deployment("chem", "bio"), pods) == {
        "chem": (PodAddress("c-1", "10.0.0.1"), PodAddress("c-2", "fd00::5")),
        "bio": (),
    }


MADE = datetime(2026, 1, 1, tzinfo=UTC)
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def lease(renewed: str | None = None) -> dict[str, Any]:
    spec = {"spec": {"renewTime": renewed}} if renewed else {}
    return {
        "kind": "Lease",
        "metadata": {"name": "demo-tenant-chem", "creationTimestamp": "2026-01-01T00:00:00Z"},
        **spec,
    }


@pytest.mark.parametrize(
    ("found", "after", "left"),
    [
        (None, 0, 60),
        (None, 1000, 60),
        (lease(), 0, 60),
        (lease(), 59, 1),
        (lease(), 60, 0),
        (lease(), 100, -40),
        (lease("2026-01-01T00:00:30.500000Z"), 60, 30.5),
        (lease("2026-01-01T00:00:30.500000Z"), 90.5, 0),
        (lease("2025-12-31T23:00:00.000000Z"), 10, 50),
        (lease("2026-01-01T01:00:30.500000+01:00"), 60, 30.5),
    ],
    ids=str,
)
def test_seconds_until_a_sandbox_falls_asleep(found: dict[str, Any] | None, after: float, left: float) -> None:
    one = deployment("chem", "bio", sandbox={"idleTimeoutSeconds": 60})
    objects = {("Lease", "demo-tenant-chem"): found} if found else {}
    now = MADE + timedelta(seconds=after)
    assert sandboxes.until_sleep(one, objects, now, LONG_AGO) == {"chem": left, "bio": 60}


def test_those_that_never_sleep_are_left_out() -> None:
    assert sandboxes.until_sleep(deployment("chem"), {}, MADE, LONG_AGO) == {}


@pytest.mark.parametrize(("replicas", "left"), [(1, 20), (None, 20), (0, -40)])
def test_who_could_not_renew_is_given_time_and_who_sleeps_sleeps_on(replicas: int | None, left: float) -> None:
    one = deployment("chem", sandbox={"idleTimeoutSeconds": 60})
    spec = {} if replicas is None else {"replicas": replicas}
    objects = {("Lease", "demo-tenant-chem"): lease(), ("Deployment", "demo-sandbox-chem"): {"spec": spec}}
    now = MADE + timedelta(seconds=100)
    assert sandboxes.until_sleep(one, objects, now, now + timedelta(seconds=20)) == {"chem": left}
    objects["Lease", "demo-tenant-chem"] = lease((now - timedelta(seconds=5)).isoformat())
    assert sandboxes.until_sleep(one, objects, now, now + timedelta(seconds=20)) == {"chem": 55}
