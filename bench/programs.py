"""The servers that are measured, as real processes on a CPU of their own, and what the kernel knows of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from bench.scripted import MODEL
from hack.kube import wait_for
from hack.ports import free_port

TENANT = "bench"
CLIENT_PATH = "/data/images"
_CPUS = os.sched_getaffinity(0)


@dataclass(frozen=True)
class Program:
    """A running server.

    Attributes:
        url: Of its API.
        management: Of the orchestrator's management API, "" for the other server.
    """

    process: subprocess.Popen[bytes]
    url: str
    management: str = ""

    @property
    def cpu_seconds(self) -> float:
        """CPU time so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mib(self) -> float:
        """Resident memory now."""
        return self._status("VmRSS") / 1024

    @property
    def peak_rss_mib(self) -> float:
        """The most resident memory since the start."""
        return self._status("VmHWM") / 1024

    @property
    def open_files(self) -> int:
        """File descriptors, connections among them."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 - only their number is wanted

    @property
    def loop_tasks(self) -> int:
        """Tasks of the orchestrator's event loop."""
        text = httpx.get(f"{self.management}/metrics", trust_env=False, timeout=30).text
        found = [line for line in text.splitlines() if line.startswith("s1vl_event_loop_tasks ")]
        return int(float(found[0].split()[1]))

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


@dataclass(frozen=True)
class Volume:
    """The image volume: one folder here, for the sandbox and for the engine."""

    root: Path

    @property
    def folder(self) -> Path:
        """The tenant's part."""
        return self.root / TENANT

    def put(self, name: str, content: bytes) -> str:
        """Write a picture; returns the client's path of it."""
        (self.folder / name).write_bytes(content)
        return f"{CLIENT_PATH}/{name}"

    @property
    def job_folders(self) -> int:
        """Folders of jobs that are there now."""
        return _entries(self.folder / ".s1vl/jobs")

    @property
    def engine_copies(self) -> int:
        """Jobs whose pictures for the engine are there now."""
        return _entries(self.root / ".s1vl/engine")


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


def measured_cpu() -> set[int]:
    """The CPU for the server that is measured, and nothing else of the bench where there is another."""
    return {min(_CPUS)}


def other_cpus() -> set[int]:
    """The CPUs for everything else."""
    return _CPUS - measured_cpu() or _CPUS


@contextlib.contextmanager
def temporary_folder(*, on_disk: bool = True) -> Iterator[Path]:
    """A folder with a short path, as those of Unix sockets must be; in memory where what it costs must not count."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it has a random name
    parent = Path("/tmp") if on_disk or not memory.is_dir() else memory  # noqa: S108 - likewise
    with tempfile.TemporaryDirectory(prefix="s1vl-bench-", dir=parent) as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def orchestrator(
    folder: Path,
    volume: Volume,
    *,
    engine: str,
    sandbox: str,
    concurrent: int = 64,
    deadline_seconds: float = 270,
    media: bool = True,
) -> AsyncIterator[Program]:
    """`s1vl-orchestrator --config FILE` for one tenant without a key, ready to run jobs."""
    config = {
        "version": 1,
        "deployment": {"namespace": "default", "name": "bench"},
        "engine": {
            "url": engine,
            "model": MODEL,
            "maxModelLen": 32768,
            "imagesPerPrompt": 15,
            "mediaRoot": str(volume.root) if media else "",
        },
        "images": {"root": str(volume.root), "clientPath": CLIENT_PATH, "sandboxPath": str(volume.folder)},
        "limits": {"maxTurns": 8, "deadlineSeconds": deadline_seconds},
        "anonymousTenant": TENANT,
        "tenants": [
            {
                "name": TENANT,
                "subPath": TENANT,
                "sandbox": {"url": sandbox},
                "limits": {"concurrentRequests": concurrent, "queuedRequests": concurrent},
            }
        ],
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    port, management = free_port(), free_port()
    arguments = [
        "--config",
        str(file),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--management-port",
        str(management),
    ]
    command = [sys.executable, "-m", "s1vl_orchestrator", *arguments]
    async with _running(command, folder / "orchestrator.log", {}) as process:
        program = Program(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management}")

        def ready() -> bool:
            _still_there(process, folder / "orchestrator.log")
            with contextlib.suppress(httpx.TransportError):
                told = httpx.get(f"{program.management}/internal/tenants", trust_env=False).json()
                return all(tenant["ready"] for tenant in told["tenants"]) and bool(told["tenants"])
            return False

        # In a thread: the stand-ins that it waits for live in this event loop.
        await asyncio.to_thread(wait_for, "the orchestrator", ready, every=0.05)
        yield program


@contextlib.asynccontextmanager
async def naive(
    folder: Path, volume: Volume, *, engine: str, sandbox: str, keep_client: bool = False
) -> AsyncIterator[Program]:
    """`python bench/naive_twi_server.py`, as it is or with one HTTP client for all calls."""
    port = free_port()
    env = {
        "CHAT_API": f"{engine}/v1/chat/completions",
        "JUPYTER_API": f"{sandbox}/v1/jupyter",
        "HOST_IMG_DIR": str(volume.folder),
        "SANDBOX_IMG_DIR": str(volume.folder),
        "KEEP_CLIENT": "1" if keep_client else "",
    }
    command = [sys.executable, str(Path(__file__).parent / "naive_twi_server.py"), str(port)]
    async with _running(command, folder / "naive.log", env) as process:
        program = Program(process, f"http://127.0.0.1:{port}")

        def ready() -> bool:
            _still_there(process, folder / "naive.log")
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{program.url}/openapi.json", trust_env=False).status_code == httpx.codes.OK
            return False

        await asyncio.to_thread(wait_for, "the naive server", ready, every=0.05)
        yield program


@contextlib.asynccontextmanager
async def _running(command: list[str], log: Path, env: dict[str, str]) -> AsyncIterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=out, stderr=out)  # noqa: ASYNC220 - quick
    os.sched_setaffinity(process.pid, measured_cpu())
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, 60)
        finally:
            process.kill()
            process.wait()


def _still_there(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"it ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}")
