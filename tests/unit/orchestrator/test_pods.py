"""`pods.yaml`, and what a tenant's pods are together."""

from __future__ import annotations

import pytest

from s1vl_orchestrator.canary import NOT_CHECKED, PathReason, PathStatus, combined
from s1vl_orchestrator.config import ConfigError
from s1vl_orchestrator.pods import parse_pods

TEXT = """
version: 1
engine: {hung: ["10.244.0.9"]}
sandboxes:
  chem: [{name: demo-sandbox-chem-5d9-abcde, address: 10.244.0.5}, {name: b, address: "fd00::5"}]
  bio: []
"""


def test_the_operators_file() -> None:
    pods = parse_pods(TEXT)
    assert pods.engine.hung == ("10.244.0.9",)
    assert [(pod.name[:4], pod.address) for pod in pods.sandboxes["chem"]] == [
        ("demo", "10.244.0.5"),
        ("b", "fd00::5"),
    ]
    assert pods.sandboxes["bio"] == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("version: 1", "version: 2"), "version"),
        (("hung", "hanging"), "engine.hanging"),
        (("10.244.0.5", "demo-sandbox"), "sandboxes.chem.0.address"),
        (("fd00::5", "[fd00::5]"), "sandboxes.chem.1.address"),
        (("bio: []", "bio: {}"), "sandboxes.bio"),
        (("sandboxes:", "sandboxes: {"), "not YAML"),
    ],
)
def test_what_is_refused_is_named(change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"pods.yaml: {said}"):
        parse_pods(TEXT.replace(*change))


RIGHT = PathStatus(True, PathReason.CONSISTENT, "right", None)
WRONG = PathStatus(False, PathReason.MISMATCH, "wrong", None)
AWAY = PathStatus(None, PathReason.UNREACHABLE, "away", None)


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([RIGHT], RIGHT),
        ([AWAY, RIGHT, NOT_CHECKED], RIGHT),
        ([RIGHT, WRONG, AWAY], WRONG),
        ([NOT_CHECKED, AWAY], AWAY),
        ([NOT_CHECKED], NOT_CHECKED),
    ],
)
def test_the_status_of_several_pods(pods: list[PathStatus], expected: PathStatus) -> None:
    assert combined("chem", pods) is expected


def test_the_status_without_a_pod() -> None:
    status = combined("chem", [])
    assert (status.consistent, status.reason) == (None, PathReason.UNREACHABLE)
