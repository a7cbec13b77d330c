"""The orchestrator between a scripted engine, simulated or real, and `s1vl-sandbox serve` with its kernels."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image, ImageDraw

from hack.kube import wait_for
from hack.sandbox_program import SandboxProgram
from s1vl_orchestrator import jobs
from s1vl_orchestrator.app import create_app
from s1vl_orchestrator.loop import Outcome, Task
from s1vl_orchestrator.protocol.profile import Profile, load_profile
from s1vl_orchestrator.sandbox_pod import WatchTimes
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.sources import FileSource
from tests.component.orchestrator.conftest import text, until
from tests.component.orchestrator.fakes import served, stop_all
from tests.component.orchestrator.test_stream import all_events, joined
from tests.engine.jobs.scripted import ScriptedEngine

MODEL = "ScienceOne-AI/S1-VL-32B"
TIMES = WatchTimes(canary=60, probe=5, retry_first=0.1, retry_most=0.5, orphans=60)


def picture(width: int = 1024, height: int = 1024) -> bytes:
    """A PNG in which every 256 px begin another colour, so that a crop can be told from another."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for x in range(0, width, 256):
        for y in range(0, height, 256):
            draw.rectangle((x, y, x + 255, y + 255), fill=(x % 256, 20 + x // 16, 30 + y // 16))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def crop(profile: Profile, number: int) -> str:
    """Code that cuts a 256x256 px square out of the first input, saves it, and prints its colour and its path."""
    name = profile.variables(1)[0][0]
    x, y = 256 * (number % 4), 256 * (number // 4 % 4)
    return (
        f"# The square number {number}, a quarter of the picture's side.\n"
        f"square = {name}.crop(({x}, {y}, {x + 256}, {y + 256}))\n"
        f"path = output_dir + '/square_{number}.png'\n"
        "square.save(path)\n"
        f"print('square {number} has the colour', square.getpixel((128, 128)))\n"
        "print(path)"
    )


def in_tags(profile: Profile, source: str) -> str:
    """Code as this protocol's model writes it."""
    if profile.name == "tool_call":
        return f"<tool_call>\n{json.dumps({'name': 'code', 'arguments': {'code': source}})}\n</tool_call>"
    return f"<code>\n```python\n{source}\n```\n</code>"


def code(profile: Profile, source: str, thought: str = "I look closer.") -> str:
    """A turn that closes its thinking and then writes code."""
    return f"{thought}\n</think>\n\n{in_tags(profile, source)}"


def code_in_thinking(profile: Profile, source: str, thought: str = "I look closer.") -> str:
    """A turn that writes code in its thinking: vLLM gives it as reasoning, and content null."""
    return f"{thought}\n{in_tags(profile, source)}"


def final(profile: Profile, value: str, thought: str = "Now I know.") -> str:
    """The last turn."""
    answer = value if profile.name == "tool_call" else f"<answer>{value}</answer>"
    return f"{thought}\n</think>\n\n{answer}"


def last_text(messages: list[dict[str, Any]]) -> str:
    """The text of the last message of a prompt."""
    content = messages[-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@dataclass
class World:
    """Everything a test can turn.

    Attributes:
        tasks: Of all jobs, as the loop left them.
    """

    root: Path
    proxy: ScriptedEngine
    service: Service
    config_file: Path
    config: dict[str, Any]
    http: httpx.AsyncClient
    tasks: list[Task] = field(default_factory=list)

    @property
    def profile(self) -> Profile:
        return load_profile(self.config["protocol"])

    async def configure(self, protocol: str = "s1vl", **engine: Any) -> Profile:
        """Change the protocol, or something of `engine`, and wait until it is in use."""
        self.config["protocol"] = protocol
        self.config["engine"] |= engine
        self.config_file.write_text(yaml.safe_dump(self.config))

        def in_use() -> bool:
            config = self.service.snapshot and self.service.snapshot.config
            wanted = self.config["engine"]
            return bool(
                config
                and config.protocol == protocol
                and config.engine.max_model_len == wanted["maxModelLen"]
                and config.engine.images_per_prompt == wanted["imagesPerPrompt"]
            )

        await until(in_use, "the new configuration in use")
        return self.profile

    def put(self, name: str, content: bytes) -> str:
        """Write a file of the tenant's; returns its path as clients name it."""
        (self.root / "chem" / name).write_bytes(content)
        return f"/data/images/{name}"

    async def answer(self, question: str = "What colour is it?", **body: Any) -> dict[str, Any]:
        response = await self.http.post("/process", json={"messages": [text(question)], **body})
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        return result

    async def streamed(self, question: str = "What colour is it?", **body: Any) -> dict[str, Any]:
        """The last event's data of a streamed job, whose pieces must make the same answer."""
        events = await all_events(self, text(question), stream=True, **body)  # type: ignore[arg-type]
        assert events[-1][0] == "done", events[-1]
        result: dict[str, Any] = events[-1][1]
        assert joined(events, "answer.delta") == result["answer"]
        codes = [data["code"] for name, data in events if name == "code"]
        assert codes == [turn["code"] for turn in result["turns"] if turn["code"]]
        return result


@pytest.fixture(scope="session")
def sandbox(engine: Any) -> Iterator[str]:
    """A sandbox whose kernels may read what the engine may; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="s1vl-test-", dir="/tmp") as folder:
        program = SandboxProgram(Path(folder), workspace=engine.media, warm_kernels=1)
        try:
            wait_for("the sandbox", program.ready, every=0.1)
            yield program.url
        finally:
            program.end()


@pytest.fixture
async def world(engine: Any, sandbox: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """One tenant on a volume of its own below the folder that the engine may read."""
    root = engine.media / uuid.uuid4().hex[:8]
    (root / "chem").mkdir(parents=True)
    proxy = ScriptedEngine(engine.url)
    config_file = tmp_path / "config.yaml"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(proxy.close)
        config = {
            "version": 1,
            "deployment": {"namespace": "default", "name": "demo"},
            "engine": {
                "url": await stack.enter_async_context(served(proxy.app())),
                "model": MODEL,
                "maxModelLen": 32768,
                "imagesPerPrompt": 15,
                "mediaRoot": str(root),
            },
            "images": {"root": str(root), "clientPath": "/data/images", "sandboxPath": str(root / "chem")},
            "limits": {"maxTurns": 8, "deadlineSeconds": 600},
            "protocol": "s1vl",
            "anonymousTenant": "chem",
            "tenants": [{"name": "chem", "subPath": "chem", "sandbox": {"url": sandbox}}],
        }
        config_file.write_text(yaml.safe_dump(config))
        service = Service(FileSource(config_file, tmp_path), times=TIMES, poll_seconds=0.05)
        await service.start()
        url = await stack.enter_async_context(served(create_app(service)))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=900))
        world = World(root, proxy, service, config_file, config, http)

        async def think(task: Task, *others: Any) -> Outcome:
            world.tasks.append(task)
            return await original(task, *others)

        original = jobs.think
        monkeypatch.setattr(jobs, "think", think)
        try:
            await until(lambda: all(t.status.consistent for t in service.tenants.values()), "a good canary", 120)
            yield world
        finally:
            await service.close()
            stop_all()
            await asyncio.sleep(0)
