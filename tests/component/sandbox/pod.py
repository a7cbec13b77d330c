"""Server and kernel host as two programs that share a state folder, as in a pod."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx

from hack.ports import free_port
from hack.sandbox_program import SandboxProgram


class Pod:
    """The two programs; each can be killed and started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "images"
        self.workspace.mkdir()
        self.workspace.chmod(0o2770)
        self.state_dir = folder / "run"
        self.state_dir.mkdir()
        self.port = free_port()
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self.programs: dict[str, SandboxProgram] = {}

    def start(self, command: str, **settings: Any) -> None:
        """Start "serve" or "kernels"."""
        self.programs[command] = SandboxProgram(
            self.folder,
            command,
            port=self.port,
            state_dir=self.state_dir,
            workspace=self.workspace,
            kernels="separate",
            **settings,
        )

    def kill(self, command: str, number: int = signal.SIGKILL) -> int:
        """End a program and return its exit code."""
        return self.programs[command].end(number)

    async def readiness(self) -> tuple[int, str]:
        """Status and reason of /readyz; 0 while nobody listens."""
        try:
            answer = await self.http.get("/readyz")
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.json()["reason"]

    async def ready(self) -> bool:
        """Whether it runs code."""
        return (await self.readiness())[0] == 200

    async def unready_because(self, reason: str) -> bool:
        """Whether the server says that it cannot run code, and that reason."""
        status, why = await self.readiness()
        return status == 503 and reason in why

    async def execute(self, code: str, session_id: str, **body: Any) -> dict[str, Any]:
        """Run a cell and return `data`."""
        body = {"code": code, "session_id": session_id, **body}
        data: dict[str, Any] = (await self.http.post("/v1/jupyter/execute", json=body)).json()["data"]
        return data
