"""A tenant's sandbox of several pods."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.component.orchestrator.conftest import World, code, final, image, png, text, until
from tests.component.orchestrator.fakes import FakeSandbox, served

HOST = "sandbox.test"
FIRST, SECOND, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"


def waits(name: str) -> str:
    """A cell that runs until it is let go on."""
    return f"""
import os, time
x = 1
open(output_dir + "/{name}.started", "w").close()
while not os.path.exists(output_dir + "/{name}"):
    time.sleep(0.05)
"""


@dataclass
class Boxes:
    """The sandbox of tenant chem: pods at addresses of their own and one port."""

    world: World
    port: int
    boxes: dict[str, FakeSandbox] = field(default_factory=dict)
    servers: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def start(self, *addresses: str, mount: Path | None = None) -> None:
        for address in addresses:
            self.boxes[address] = FakeSandbox(mount or self.world.folder(), "box-chem")
            self.servers[address] = AsyncExitStack()
            await self.servers[address].enter_async_context(served(self.boxes[address].app(), self.port, address))

    async def stop(self, address: str) -> None:
        """End a pod and its sessions, as when its node is lost."""
        await self.servers.pop(address).aclose()
        self.boxes[address].forget()

    def list(self, *addresses: str, prefix: str = "pod") -> None:
        pods = [{"name": f"{prefix}-{address}", "address": address} for address in addresses]
        self.world.write_pods(sandboxes={"chem": pods})

    def all(self) -> dict[str, dict[str, Any]]:
        pods = self.world.service.tenants["chem"].describe()["sandboxes"]
        assert isinstance(pods, list)
        return {pod["address"].removesuffix(f":{self.port}"): pod for pod in pods}

    async def ready(self, *addresses: str) -> None:
        await until(
            lambda: {at for at, pod in self.all().items() if pod["listed"] and pod["consistent"]} == {*addresses},
            "exactly these pods to take sessions",
        )

    def sessions(self) -> dict[str, int]:
        """Of jobs, as this instance counts them."""
        return {at: pod["sessions"] for at, pod in self.all().items() if pod["sessions"]}

    def reason(self, address: str) -> str:
        return str(self.all().get(address, {}).get("reason"))

    def outputs(self) -> list[Path]:
        """The folders of all jobs."""
        return list(self.world.folder().glob(".s1vl/jobs/*/output"))

    async def job(self, *more: str) -> asyncio.Task[dict[str, Any]]:
        """A job that waits in its first cell."""
        before = self.waiting()
        self.world.engine.script = [code(waits("go"))]
        task = asyncio.create_task(self.world.answer(text(), image(png())))
        await until(lambda: self.waiting() == before + 1, "the cell to run")
        self.world.engine.script = [*map(code, more), final("red")]
        return task

    def waiting(self) -> int:
        """Jobs whose first cell runs, or has run."""
        return sum((output / "go.started").exists() for output in self.outputs())

    def go_on(self, name: str = "go") -> None:
        for output in self.outputs():
            (output / name).touch()


@asynccontextmanager
async def sandbox_of_chem(world: World) -> AsyncIterator[Boxes]:
    """Its pods, none at first."""
    with contextlib.ExitStack() as held:
        probe = held.enter_context(socket.socket())
        probe.bind((FIRST, 0))
        port = probe.getsockname()[1]
    boxes = Boxes(world, port)
    world.hosts[HOST] = []
    world.config["tenants"][0]["sandbox"]["url"] = f"http://{HOST}:{port}"
    world.config["tenants"][0]["limits"]["concurrentRequests"] = 16
    # Cells of these tests wait until they are let go on.
    world.config["sandbox"]["executionTimeoutSeconds"] = 300
    world.config["limits"]["deadlineSeconds"] = 600
    boxes.list()
    world.write_config()
    await until(lambda: not boxes.all() and world.service.snapshot.config.limits.deadline_seconds == 600, "no pod")  # type: ignore[union-attr]
    try:
        yield boxes
    finally:
        for address in list(boxes.servers):
            await boxes.boxes[address].close()
            await boxes.servers.pop(address).aclose()
