"""Starts and ends the real vLLM with the tiny model."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from hack.cluster.paths import LOCAL
from hack.cluster.processes import start_time
from hack.ui import Failure, step
from hack.vllm import arguments, install, tiny
from s1vl_operator.desired.vllm import served_name

LOGS = LOCAL / "log"
START_SECONDS = 300.0
# A running stream may take the whole drain time; after that vLLM waits for its clients for ever.
END_SECONDS = arguments.DRAIN_SECONDS + 15.0
_CORE = "0"


@dataclass
class Server:
    """A running vLLM.

    Attributes:
        url: of its HTTP API, without a slash at the end.
        media: the folder below which `file://` may read; made by whoever started it.
        model: name of the model in requests.
        process: its API server, which leads a process group of its own.
        log: what it printed.
        scratch: its own folder, removed when it ends.
    """

    url: str
    media: Path
    model: str
    process: subprocess.Popen[bytes]
    log: Path
    scratch: Path = field(repr=False)

    @property
    def pid(self) -> int:
        """Of the API server, which takes SIGTERM for all of its processes."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether the API server still runs."""
        return self.process.poll() is None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(words: tuple[str, ...]) -> list[str]:
    """The command line of vLLM with those arguments, as this machine runs it; installs vLLM where it is missing.

    On one core: on two it kept every other program of the machine waiting for seconds, and was no faster.
    """
    return ["taskset", "-c", _CORE, str(install.ensure()), "-m", "vllm.entrypoints.cli.main", *words]


def environment(extra: dict[str, str]) -> dict[str, str]:
    """This process's environment without what leads to this project's packages, plus `extra`."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VLLM_"))}
    return own | extra


def start(media: Path, *, port: int | None = None, log: Path = LOGS / "vllm.log") -> Server:
    """Start a vLLM and wait until it is healthy; about half a minute.

    Args:
        media: the folder below which it may read `file://` URLs; must exist.
        port: to listen on at 127.0.0.1; a free one when absent.
        log: written anew.

    Raises:
        Failure: it ended while starting or was not healthy within `START_SECONDS`; names the log.
    """
    python = install.ensure()
    model = tiny.ensure(python)
    log.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="s1vl-vllm-"))
    port = port or free_port()
    launch = arguments.launch(port, model, media.resolve(strict=True), scratch)
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(launch.words),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(launch.environment),
            cwd=scratch,
            start_new_session=True,
        )
    name = served_name(arguments.deployment(port))
    server = Server(f"http://127.0.0.1:{port}", media.resolve(), name, process, log, scratch)
    try:
        with step(f"start vLLM {install.release()} on {server.url}; its log is {_shown(log)}"):
            _await_health(server)
    except BaseException:
        stop(server, grace=0)
        raise
    return server


def stop(server: Server, grace: float = END_SECONDS) -> None:
    """End a vLLM and every process that it started: SIGTERM, `grace` seconds, SIGKILL. Does nothing twice."""
    if server.alive and grace > 0:
        server.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(grace)
    for pid in _members(server.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()
    shutil.rmtree(server.scratch, ignore_errors=True)


@contextlib.contextmanager
def serving(media: Path, *, port: int | None = None) -> Iterator[Server]:
    """A vLLM for the time of a `with` block; see `start`."""
    server = start(media, port=port)
    try:
        yield server
    finally:
        stop(server)


def _await_health(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _healthy(server.url):
        if not server.alive:
            raise Failure(f"vLLM ended with {server.process.returncode} while starting", server.log)
        if time.monotonic() > deadline:
            raise Failure(f"vLLM was not healthy within {START_SECONDS:.0f} s", server.log)
        time.sleep(0.2)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _members(leader: int) -> list[int]:
    """The living processes of the session that `leader` began: vLLM's engine and workers stay in it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            pid = int(folder.name)
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == leader and start_time(pid) is not None:
                    found.append(pid)
    return found


def _shown(path: Path) -> Path:
    return path.relative_to(LOCAL.parent) if path.is_relative_to(LOCAL.parent) else path
