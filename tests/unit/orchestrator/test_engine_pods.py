"""Names of engine pods."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from s1vl_orchestrator.addresses import resolve_host
from s1vl_orchestrator.config import Engine
from s1vl_orchestrator.engine_pods import EnginePods
from s1vl_orchestrator.telemetry import Metrics


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([(socket.AF_INET, 1, 6, "", ("10.0.0.3", 0)), (socket.AF_INET6, 1, 6, "", ("fd00::3", 0, 0, 0))],
         ["10.0.0.3", "fd00::3"]),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), []),
        (socket.gaierror(socket.EAI_NODATA, "no address"), []),
    ],
)  # fmt: skip
async def test_names(monkeypatch: pytest.MonkeyPatch, answer: Any, expected: list[str]) -> None:
    _answer(monkeypatch, answer)
    assert await resolve_host("engine-pods") == expected


async def test_a_name_that_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _answer(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "no server answers"))
    with pytest.raises(OSError, match="no server answers"):
        await resolve_host("engine-pods")


def _answer(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    ("url", "pods"),
    [
        ("http://engine:9200", ["10.0.0.3:9200", "[fd00::3]:9200"]),
        ("http://engine:9200/", ["10.0.0.3:9200", "[fd00::3]:9200"]),
        ("http://engine/prefix", ["10.0.0.3", "[fd00::3]"]),
    ],
)
async def test_pods_have_the_port_of_the_url(url: str, pods: list[str]) -> None:
    async def resolve(_: str) -> list[str]:
        return ["fd00::3", "10.0.0.3", "10.0.0.3"]

    engine = EnginePods(Metrics(), resolve)
    engine.follow(Engine(url=url, pods_host="engine-pods", model="m", max_model_len=4096, images_per_prompt=1), ())
    try:
        async with asyncio.timeout(30):
            while [pod["address"] for pod in engine.describe() if pod["listed"]] != pods:  # noqa: ASYNC110  (polled state)
                await asyncio.sleep(0.01)
    finally:
        await engine.close()
