"""SIGTERM to the engine in the middle of a job: what runs is finished, and another engine goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.vllm import serve
from tests.engine.jobs.conftest import World, code, crop, final, picture
from tests.engine.jobs.scripted import Step


@pytest.fixture
def other(engine: Any, tmp_path: Path) -> Iterator[serve.Server]:
    """The engine that takes over: the simulator, which has seen nothing of the job."""
    server = serve.start(serve.simulator(), engine.media, log=tmp_path / "other.log")
    yield server
    serve.stop(server, grace=0)


async def test_another_engine_goes_on(world: World, engine: Any, other: serve.Server) -> None:
    server = engine.running()
    profile = world.profile

    def take_over() -> None:
        world.proxy.url = other.url

    world.proxy.say(
        Step(code(profile, crop(profile, 1), "I look closer. " * 60), within=server.process.terminate),
        Step(code(profile, crop(profile, 2)), refused=take_over),
        final(profile, "red"),
    )
    result = await world.answer(image_path_list=[world.put("x.png", picture())])
    assert (result["stop_reason"], result["answer"]) == ("answer", "red")
    assert [turn["cell"] and turn["cell"]["status"] for turn in result["turns"]] == ["ok", "ok", None]
    first, refused, *others = world.proxy.exchanges
    # The turn that ran came to its end, and nothing new was taken.
    assert (first.finish, first.reasoning + "</think>" + first.content) == ("stop", first.said)
    assert refused.status in (500, 502)
    assert refused.status == 502 or "cannot schedule new futures after shutdown" in refused.error
    # Where the pictures were sent only by name, the other engine has none of them, and gets all.
    taken = [exchange for exchange in others if exchange.status == 200]
    assert [exchange.status for exchange in others if exchange not in taken] in ([], [400])
    assert [exchange.sent_whole for exchange in taken] == [[True, True], [False, False, True]]
    assert server.process.wait(60) == 0
