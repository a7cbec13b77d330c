"""One engine for all tests of this folder, which hold for the simulator and for the real vLLM alike.

It is the simulator; with S1VL_TEST_ENGINE=vllm the real vLLM of hack/vllm with the tiny model, started once; with
VLLM_URL and VLLM_MEDIA a server that runs already, such as `python -m hack.vllm serve`. All have the operator's flags.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from hack.ui import step
from hack.vllm import install, serve
from tests.component.engine_sim.conftest import Client, image, until

__all__ = ["image", "until"]

REAL = os.environ.get("S1VL_TEST_ENGINE") == "vllm"
TIMEOUT = 300.0
TEXT = {"type": "text", "text": "What is this?"}


@dataclass
class Engine(Client):
    """An engine that is started when it is first needed, and anew after a test has ended it.

    Attributes:
        media: the folder below which it may read `file://` URLs.
        launch: starts a server; None for one that is not ours.
        found: URL of a server that is not ours.
    """

    media: Path
    launch: Callable[[], serve.Server] | None
    found: str = ""
    server: serve.Server | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return self.found or self.running().url

    def running(self) -> serve.Server:
        """The server itself; skips the test when it is not ours."""
        if self.launch is None:
            pytest.skip("VLLM_URL is somebody else's server")
        if self.server is None or not self.server.alive:
            self.end()
            self.server = self.launch()
        return self.server

    def end(self) -> None:
        if self.server is not None:
            serve.stop(self.server)

    def stream(self, *parts: object, **fields: Any) -> list[dict[str, Any]]:
        """All chunks of a streamed answer that ended well."""
        body = self.body(*parts, stream=True, **fields)
        with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=TIMEOUT) as response:
            assert response.status_code == 200, response.read().decode()
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            lines = [line for line in response.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    def tokenize(self, *parts: object, **fields: Any) -> dict[str, Any]:
        """The answer of `/tokenize` to the messages that `chat` would send."""
        body = self.body(*parts, **fields)
        response = httpx.post(f"{self.url}/tokenize", json=body, timeout=TIMEOUT)
        assert response.status_code == 200, response.text
        return dict(response.json())


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine of this run."""
    if url := os.environ.get("VLLM_URL"):
        yield Engine(Path(os.environ["VLLM_MEDIA"]), None, url.rstrip("/"))
        return
    folder = tmp_path_factory.mktemp("engine")
    media = folder / "media"
    media.mkdir()
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def launch() -> serve.Server:
        if not REAL:
            return serve.start(serve.simulator(), media, log=folder / "engine.log")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            program = serve.real()
            with step(f"start vLLM {install.release()}; its log is {serve.LOG}"):
                return serve.start(program, media)

    engine = Engine(media, launch)
    yield engine
    engine.end()


def error_of(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """The `error` of an answer that was refused with `status`, in the shape that all of them have."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    return dict(error)


def joined(chunks: list[dict[str, Any]], field: str) -> str:
    """What all chunks of a stream say in one field of their `delta`."""
    return "".join(choice["delta"].get(field) or "" for chunk in chunks for choice in chunk["choices"])
