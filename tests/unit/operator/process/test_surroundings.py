"""Where the API server is, from EndpointSlices and from the environment."""

from __future__ import annotations

from typing import Any

import pytest

from s1vl_operator.cluster.port import Unreachable
from s1vl_operator.settings import Settings
from s1vl_operator.surroundings import GONE_SECONDS, Surroundings, api_server_cidrs

SLICES: list[dict[str, Any]] = [
    {"endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]}], "ports": [{"port": 6443}]},
    {"endpoints": [{"addresses": ["fd00::1"]}], "ports": [{"port": 6443}]},
    {"endpoints": None, "ports": None},
]


def test_addresses_of_slices_and_of_the_service() -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert api_server_cidrs(SLICES, environment) == (
        ("10.0.0.1/32", 6443),
        ("10.0.0.2/32", 6443),
        ("10.96.0.1/32", 443),
        ("fd00::1/128", 6443),
    )
    assert api_server_cidrs(SLICES[::-1], environment) == api_server_cidrs(SLICES, environment)
    assert api_server_cidrs([], {}) == ()


class Slices:
    """The one call that is made."""

    def __init__(self) -> None:
        self.slices: list[dict[str, Any]] | None = None

    keda = False

    async def served(self, *_: Any) -> bool:
        return self.keda

    async def list(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        if self.slices is None:
            raise Unreachable("gone")
        return self.slices


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_what_was_known_survives_a_failure() -> None:
    cluster, time = Slices(), Time()
    settings = Settings(image="i", namespace="s1vl-system")
    around = Surroundings(settings, cluster, {}, time)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        around.context()
    with pytest.raises(Unreachable):
        await around.refresh()
    cluster.slices = SLICES
    assert await around.refresh()
    assert not await around.refresh()
    known = around.context()
    assert (known.control_image, known.operator_namespace, len(known.api_server_cidrs)) == ("i", "s1vl-system", 3)
    cluster.slices = None
    time.now += GONE_SECONDS
    assert not await around.refresh()
    assert around.context() is known
    cluster.slices = SLICES
    assert not await around.refresh()
    assert not around.context().keda
    cluster.keda = True
    assert await around.refresh()
    assert around.context().keda


async def test_an_api_server_that_restarts_is_not_shut_out() -> None:
    cluster, time = Slices(), Time()
    around = Surroundings(Settings(), cluster, {}, time)  # type: ignore[arg-type]
    nobody = [{**SLICES[0], "endpoints": []}]
    cluster.slices = nobody
    with pytest.raises(Unreachable, match="its own address"):
        await around.refresh()
    cluster.slices = SLICES[:1]
    await around.refresh()
    both = (("10.0.0.1/32", 6443), ("10.0.0.2/32", 6443))
    assert around.context().api_server_cidrs == both
    one = [{**SLICES[0], "endpoints": [{"addresses": ["10.0.0.1"]}]}]
    for slices in (nobody, one):
        cluster.slices = slices
        assert not await around.refresh()
        assert around.context().api_server_cidrs == both
    time.now += GONE_SECONDS
    assert await around.refresh(), "it is gone for good"
    assert around.context().api_server_cidrs == both[:1]


@pytest.mark.parametrize(("text", "names"), [("", ()), ("a", ("a",)), (" a, b ,,", ("a", "b"))])
def test_namespaces(monkeypatch: pytest.MonkeyPatch, text: str, names: tuple[str, ...]) -> None:
    monkeypatch.setenv("S1VL_OPERATOR_WATCH_NAMESPACES", text)
    assert Settings().namespaces == names
