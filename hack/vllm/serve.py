"""Starts and ends the real vLLM with the tiny model, or the simulator with the same command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from hack.cluster.paths import LOCAL, ROOT
from hack.cluster.processes import start_time
from hack.ports import free_port
from hack.ui import Failure
from hack.vllm import arguments, install, tiny

LOG = LOCAL / "log" / "vllm.log"
START_SECONDS = 300.0
# A running stream may take the whole drain time; after that vLLM waits for its clients for ever.
END_SECONDS = arguments.DRAIN_SECONDS + 15.0
# However the thread that started it ends, it gets SIGTERM.
_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")
_CORE = "0"
_SIMULATOR = ROOT / "hack" / "engine_sim" / "bin" / "vllm"


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


@dataclass(frozen=True)
class Program:
    """What takes vLLM's arguments.

    Attributes:
        command: the words before them.
        model: the folder of the model that it serves.
    """

    command: tuple[str, ...]
    model: Path


def real() -> Program:
    """The real vLLM and the tiny model, installed first where they are missing.

    It gets one core: with two it kept every other program of a small machine waiting for seconds, and was no faster.
    """
    python = install.ensure()
    words = ("taskset", "--cpu-list", _CORE, str(python), "-m", "vllm.entrypoints.cli.main")
    return Program(words, tiny.ensure(python))


def simulator() -> Program:
    """The simulator, which never reads its model."""
    return Program((sys.executable, str(_SIMULATOR)), Path("/weights"))


def environment(extra: dict[str, str]) -> dict[str, str]:
    """This process's environment without what would change Python or vLLM, plus `extra`."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VLLM_"))}
    return own | extra


def start(program: Program, media: Path, *, port: int | None = None, log: Path = LOG) -> Server:
    """Start a server as the operator would and wait until it is healthy; half a minute for the real one.

    It is told to end when the calling thread ends.

    Args:
        program: `real()` or `simulator()`.
        media: the folder below which it may read `file://` URLs; must exist.
        port: to listen on at 127.0.0.1; a free one when absent.
        log: written anew.

    Raises:
        Failure: it ended while starting or was not healthy within `START_SECONDS`; names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="s1vl-vllm-"))
    port = port or free_port()
    launch = arguments.launch(port, program.model, media.resolve(strict=True), scratch)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*_WITH_PARENT, *program.command, *launch.words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(launch.environment),
            cwd=scratch,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", media.resolve(), arguments.MODEL, process, log, scratch)
    try:
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
    for pid in members(server.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait()
    shutil.rmtree(server.scratch, ignore_errors=True)


def members(leader: int) -> list[int]:
    """The living processes of the session that `leader` began: vLLM's engine and workers stay in it."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            pid = int(folder.name)
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == leader and start_time(pid) is not None:
                    found.append(pid)
    return found


def _await_health(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not healthy(server.url):
        if not server.alive:
            raise Failure(f"vLLM ended with {server.process.returncode} while starting", server.log)
        if time.monotonic() > deadline:
            raise Failure(f"vLLM was not healthy within {START_SECONDS:.0f} s", server.log)
        time.sleep(0.2)


def healthy(url: str) -> bool:
    """Whether a server answers its health check; it may not listen yet."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
