"""The real application over HTTP, between a scripted engine and a sandbox that really runs code."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from openai import AsyncOpenAI
from PIL import Image

from s1vl_orchestrator.api import bodies
from s1vl_orchestrator.app import create_app, create_management_app
from s1vl_orchestrator.sandbox_pod import WatchTimes
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.sources import FileSource
from tests.component.orchestrator.documented import HOOKS
from tests.component.orchestrator.fakes import FakeEngine, FakeSandbox, served, stop_all

PLAIN: dict[str, Any] = {"verify": False}
"""For httpx's clients: each reads all certificates otherwise, which takes as long as a whole request."""
TIMES = WatchTimes(canary=30, probe=0.1, retry_first=0.05, retry_most=0.2, orphans=0.2, urgent=0.05, outage=3)


def png(colour: str = "red", size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def data_url(content: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def image(content: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(content)}}


def text(value: str = "What colour is it?") -> dict[str, Any]:
    return {"type": "text", "text": value}


def code(source: str, thought: str = "I look.\n</think>\n\n") -> str:
    return f"{thought}<code>\n```python\n{source}\n```\n</code>"


def final(value: str) -> str:
    return f"Now I know.\n</think>\n\n<answer>{value}</answer>"


def results(messages: list[dict[str, Any]]) -> list[str]:
    """Texts of the tool messages of a prompt."""
    found = []
    for message in messages:
        if message["role"] == "tool":
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            found.append("".join(part.get("text", "") for part in parts))
    return found


async def until(condition: Callable[[], Any], what: str = "the condition", seconds: float = 30) -> Any:
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise AssertionError(f"{what} did not hold within {seconds} s")
        await asyncio.sleep(0.02)
    return value


@dataclass
class World:
    """Everything a test can turn."""

    root: Path
    config_file: Path
    config: dict[str, Any]
    engine: FakeEngine
    sandboxes: dict[str, FakeSandbox]
    addresses: list[str] | OSError = field(default_factory=list)
    """What `engine.podsHost` resolves to."""
    hosts: dict[str, list[str]] = field(default_factory=dict)
    """What other names resolve to."""
    service: Service = field(default=None)  # type: ignore[assignment]
    url: str = ""
    management: str = ""
    http: httpx.AsyncClient = field(default=None)  # type: ignore[assignment]

    async def resolve(self, host: str) -> list[str]:
        if host in self.hosts:
            return self.hosts[host]
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return self.addresses

    def folder(self, tenant: str = "chem") -> Path:
        return self.root / tenant

    def put(self, name: str, content: bytes, tenant: str = "chem") -> str:
        file = self.folder(tenant) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return f"/data/images/{name}"

    def jobs(self, tenant: str = "chem") -> list[str]:
        folder = self.folder(tenant) / ".s1vl/jobs"
        return sorted(item.name for item in folder.iterdir()) if folder.exists() else []

    def copies(self) -> list[Path]:
        return list((self.root / ".s1vl/engine").glob("*"))

    def write_config(self) -> None:
        self.config_file.write_text(yaml.safe_dump(self.config))

    def write_pods(self, **pods: Any) -> None:
        """Write the file beside the configuration, whole at once."""
        new = self.config_file.with_name("pods.new")
        new.write_text(yaml.safe_dump({"version": 1, "sandboxes": {}, **pods}))
        new.rename(self.config_file.with_name("pods.yaml"))

    async def ask(self, *parts: Any, paths: list[str] | None = None, key: str = "", **more: Any) -> httpx.Response:
        headers = {"X-API-Key": key} if key else {}
        body = {"messages": list(parts) or [text()], "image_path_list": paths or [], **more}
        return await self.http.post("/process", json=body, headers=headers)

    async def answer(self, *parts: Any, **more: Any) -> dict[str, Any]:
        response = await self.ask(*parts, **more)
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        return result

    async def tenants(self) -> dict[str, Any]:
        async with httpx.AsyncClient(event_hooks=HOOKS, **PLAIN) as http:
            body: dict[str, Any] = (await http.get(f"{self.management}/internal/tenants")).json()
        return body

    def assert_clean(self, *, jobs: int = 0) -> None:
        """Nothing of a job is left but the folders of those that made something."""
        assert len(self.jobs()) == jobs
        assert self.copies() == []


@pytest.fixture
def times() -> WatchTimes:
    """How often sandboxes are looked at. Canaries seldom: each is a process, which other tests would pay for."""
    return TIMES


@pytest.fixture
async def world(tmp_path: Path, times: WatchTimes) -> AsyncIterator[World]:
    root = tmp_path / "volume"
    secrets = tmp_path / "secrets"
    for tenant in ("chem", "bio"):
        (root / tenant).mkdir(parents=True)
        for name, value in ((f"demo-tenant-{tenant}", f"key-{tenant}"), (f"demo-sandbox-{tenant}", f"box-{tenant}")):
            (secrets / name).mkdir(parents=True)
            (secrets / name / "apiKey").write_text(value + "\n")
    (secrets / "demo-orchestrator").mkdir()
    (secrets / "demo-orchestrator/cacheSalt").write_text("salt")
    engine = FakeEngine(script=[final("red")])
    sandboxes = {name: FakeSandbox(root / name, f"box-{name}") for name in ("chem", "bio")}
    async with AsyncExitStack() as stack:
        engine_url = await stack.enter_async_context(served(engine.app()))
        urls = {name: await stack.enter_async_context(served(box.app())) for name, box in sandboxes.items()}
        config = {
            "version": 1,
            "deployment": {"namespace": "default", "name": "demo"},
            "engine": {
                "url": engine_url,
                "model": "ScienceOne-AI/S1-VL-32B",
                "maxModelLen": 32768,
                "imagesPerPrompt": 15,
                "mediaRoot": str(root),
            },
            "images": {"root": str(root), "clientPath": "/data/images", "sandboxPath": "/mnt/data/images"},
            "sandbox": {"executionTimeoutSeconds": 60},
            "limits": {"maxTurns": 8, "deadlineSeconds": 120},
            "protocol": "s1vl",
            "anonymousTenant": "chem",
            "cacheSaltSecret": {"name": "demo-orchestrator", "key": "cacheSalt"},
            "tenants": [
                {
                    "name": name,
                    "subPath": name,
                    "apiKeySecret": {"name": f"demo-tenant-{name}", "key": "apiKey"},
                    "sandbox": {
                        "url": urls[name],
                        "apiKeySecret": {"name": f"demo-sandbox-{name}", "key": "apiKey"},
                    },
                    "limits": {"concurrentRequests": 4, "queuedRequests": 16, "requestsPerMinute": 0},
                }
                for name in ("chem", "bio")
            ],
        }
        world = World(root, tmp_path / "config.yaml", config, engine, sandboxes)
        world.write_config()
        source = FileSource(world.config_file, secrets)
        world.service = Service(source, times=times, poll_seconds=0.05, resolve=world.resolve)
        await world.service.start()
        world.url = await stack.enter_async_context(served(create_app(world.service)))
        world.management = await stack.enter_async_context(served(create_management_app(world.service)))
        world.http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=world.url, timeout=120, event_hooks=HOOKS, **PLAIN)
        )
        try:
            await until(lambda: all(t.status.consistent for t in world.service.tenants.values()), "good canaries")
            yield world
        finally:
            await world.service.close()
            for box in sandboxes.values():
                await box.close()
            await world.http.aclose()
            stop_all()


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncOpenAI]:
    async with (
        httpx.AsyncClient(event_hooks=HOOKS, timeout=120, **PLAIN) as http,
        AsyncOpenAI(api_key="key-chem", base_url=f"{world.url}/v1", max_retries=0, http_client=http) as client,
    ):
        yield client


async def send_half_a_body(world: World, monkeypatch: pytest.MonkeyPatch, path: str) -> tuple[bytes, bytes]:
    """Post a body that does not come whole, to a server with little patience; returns its answer's head and body."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(bodies, "_DRAIN_SECONDS", 0.2)
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head, await reader.readexactly(length)
    finally:
        writer.close()
