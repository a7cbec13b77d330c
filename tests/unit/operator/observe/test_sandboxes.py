from __future__ import annotations

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
