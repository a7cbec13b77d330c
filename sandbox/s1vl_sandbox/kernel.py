"""One kernel process and the conversation with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient

from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.outputs import Output, OutputCollector, OutputLimits, error_output
from s1vl_sandbox.processes import kill_tree, signal_group

KERNEL_NAME = "python3"

# How long an interrupted cell may take to stop before its processes are killed.
INTERRUPT_GRACE_SECONDS = 1.0
# Reply and "idle" come over two sockets; when a hostile or huge message cost us one of them, the other decides.
_OTHER_HALF_SECONDS = 1.0
_START_TIMEOUT_SECONDS = 60.0
_KERNEL_INFO_INTERVAL_SECONDS = 0.25


class KernelStartError(RuntimeError):
    """A kernel process did not come up; the text carries the end of what it wrote to stderr."""


class KillCause(StrEnum):
    """Why a kernel was ended."""

    CLOSED = "closed"
    TIMEOUT = "timeout"
    OUTPUT = "output"
    DIED = "died"
    UNHEALTHY = "unhealthy"
    SHUTDOWN = "shutdown"


class CellStatus(StrEnum):
    """How a cell ended, in AIO Sandbox's words."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass
class CellResult:
    """What one cell gave.

    Attributes:
        status: ok, error or timeout.
        outputs: Entries of the Jupyter format, bounded by :class:`OutputLimits`.
        execution_count: The kernel's counter, if the kernel lived to tell.
        msg_id: Id of the execute request.
        state_lost: The kernel is gone and with it all variables; the next cell gets a fresh one.
        truncated: Output was left out, by the kernel or by the server.
        seconds: Wall-clock time.
    """

    status: CellStatus
    outputs: list[Output]
    execution_count: int | None
    msg_id: str
    state_lost: bool
    truncated: bool
    seconds: float


@dataclass
class _Cell:
    """A cell that is running: what has been heard of it so far."""

    msg_id: str
    collector: OutputCollector
    reply: dict[str, Any] | None = None
    idle: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def finished(self) -> bool:
        return self.reply is not None and self.idle

    @property
    def half_finished(self) -> bool:
        return self.reply is not None or self.idle


@dataclass(frozen=True)
class KernelFactory:
    """What all kernels of one server have in common.

    Attributes:
        root: Folder in which each kernel gets one of its own. Short: socket paths may have 107 bytes.
        limits: rlimits of the kernel processes.
        output_limits: Bounds of each cell's output.
        context: ZeroMQ context of the server.
        matplotlib_cache: Where the list of fonts is kept that the first kernel makes, for all later ones.
        pids: Every kernel process from its first moment to its last, those that are still starting included.
    """

    root: Path
    limits: KernelLimits
    output_limits: OutputLimits
    context: zmq.asyncio.Context
    matplotlib_cache: Path
    pids: set[int] = field(default_factory=set)

    async def start(self) -> Kernel:
        """Start a kernel and wait until it answers.

        Raises:
            KernelStartError: If it ends or does not answer within a minute.
        """
        kernel = Kernel(self)
        try:
            await kernel._start()
            self._keep_font_list(kernel)
        except BaseException:
            await kernel.kill(KillCause.UNHEALTHY)
            raise
        return kernel

    def _keep_font_list(self, kernel: Kernel) -> None:
        """Take the list of fonts from a kernel that no session has touched; making it costs half a second."""
        if not self.matplotlib_cache.exists():
            part = kernel.folder / "fonts"
            shutil.copytree(kernel.folder / "matplotlib", part)
            part.rename(self.matplotlib_cache)


class Kernel:
    """One kernel process, leader of its own process group, with a folder of its own.

    Make it with :meth:`KernelFactory.start`. Cells must be run one at a time (the session sees to it).
    """

    def __init__(self, factory: KernelFactory) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.killed_for: KillCause | None = None
        self.folder = factory.root / self.id
        self.work_dir = self.folder / "work"
        self._factory = factory
        self._process: asyncio.subprocess.Process | None = None
        self._client: AsyncKernelClient | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._exit: asyncio.Task[int] | None = None
        self._cell: _Cell | None = None
        self._received = 0
        self._flood: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id of the kernel, also the id of its process group."""
        if self._process is None:
            raise RuntimeError("the kernel has not been started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether cells can still run in it."""
        return self.killed_for is None and self._exit is not None and not self._exit.done()

    async def _start(self) -> None:
        info = self._make_folder()
        with (self.folder / "start.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-c", "from s1vl_sandbox.kernel_main import main; main()"),
                str(self._connection_file),
                json.dumps(vars(self._factory.limits)),
                str(os.getpid()),
                cwd=self.work_dir,
                env=kernel_environment(self.folder, os.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self._factory.pids.add(self._process.pid)
        self._exit = asyncio.create_task(self._process.wait(), name=f"kernel {self.id} exit")
        self._connect(info)
        await self._wait_until_ready()
        # The key to this kernel now lives in two memories only; other kernels could read the file.
        self._connection_file.unlink(missing_ok=True)

    @property
    def _connection_file(self) -> Path:
        return self.folder / "connection.json"

    def _make_folder(self) -> dict[str, Any]:
        self.folder.mkdir(mode=0o700)
        self.work_dir.mkdir(mode=0o750)
        if self._factory.matplotlib_cache.exists():
            shutil.copytree(self._factory.matplotlib_cache, self.folder / "matplotlib")
        info: dict[str, Any] = {
            "transport": "ipc",
            "ip": str(self.folder / "s"),
            "key": uuid.uuid4().hex,
            "signature_scheme": "hmac-sha256",
            **{f"{name}_port": n for n, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)},
        }
        self._connection_file.touch(mode=0o600)
        self._connection_file.write_text(json.dumps(info))
        return info

    def _connect(self, info: dict[str, Any]) -> None:
        client = self._client = AsyncKernelClient(context=self._factory.context)
        client.load_connection_info(info)
        client.start_channels(shell=True, iopub=True, stdin=False, hb=False, control=False)  # noqa: S604  (a channel)
        self._readers = [
            asyncio.create_task(self._read(client.shell_channel.socket), name=f"kernel {self.id} shell"),
            asyncio.create_task(self._read(client.iopub_channel.socket), name=f"kernel {self.id} iopub"),
        ]

    async def _wait_until_ready(self) -> None:
        """Ask for the kernel's info until both sockets have answered: iopub drops what it sends to nobody."""
        assert self._exit is not None  # noqa: S101  (_start has set it)
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        cell = self._cell = _Cell("", OutputCollector(self._factory.output_limits))
        while not cell.finished:
            if self._exit.done():
                raise KernelStartError(f"kernel exited with {self._exit.result()} at start: {self._start_log()}")
            if time.monotonic() > deadline:
                raise KernelStartError(f"kernel gave no answer in {_START_TIMEOUT_SECONDS:.0f} s: {self._start_log()}")
            await self._send(cell, "kernel_info_request", {})
            with contextlib.suppress(TimeoutError):
                await self._until(cell, lambda: cell.finished, _KERNEL_INFO_INTERVAL_SECONDS)
        self._cell = None

    def _start_log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "start.log").read_text(errors="replace")[-2000:].strip() or "no output"
        return "no log"

    async def _send(self, cell: _Cell, msg_type: str, content: dict[str, Any]) -> None:
        """Send a request on the shell channel and make ``cell`` listen for what comes back.

        Not with the client's own methods: they send past the asyncio socket, which swallows its one notice that a
        reply has come in; about one kernel in a hundred then seemed to hang.
        """
        assert self._client is not None  # noqa: S101  (_connect has set it)
        session = self._client.session
        message = session.msg(msg_type, content)
        cell.msg_id = message["header"]["msg_id"]
        await self._client.shell_channel.socket.send_multipart(session.serialize(message))

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        """Receive for as long as the kernel lives, cell or no cell, so that nothing piles up on either side."""
        assert self._client is not None  # noqa: S101  (_connect has set it)
        session = self._client.session
        while True:
            frames = await socket.recv_multipart()
            self._received += sum(map(len, frames))
            if self._received > self._factory.output_limits.flood_bytes:
                self._flood = asyncio.create_task(self.kill(KillCause.OUTPUT))
                return
            try:
                message = session.deserialize(session.feed_identities(frames)[1])
            except (ValueError, TypeError, KeyError, RecursionError):
                # Only a kernel whose code writes to the sockets itself gets here; what it says is not a message.
                continue
            self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        cell = self._cell
        parent, content = message.get("parent_header"), message.get("content")
        if cell is None or not isinstance(content, dict) or not isinstance(parent, dict):
            return
        if parent.get("msg_id") != cell.msg_id:
            return
        msg_type = message.get("msg_type")
        if msg_type in ("execute_reply", "kernel_info_reply"):
            cell.reply = content
        elif msg_type == "status":
            cell.idle = cell.idle or content.get("execution_state") == "idle"
        else:
            cell.collector.add(str(msg_type), content)
            return
        cell.changed.set()

    async def _until(self, cell: _Cell, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until ``condition()`` holds or the kernel is gone.

        Raises:
            TimeoutError: After ``seconds``.
        """
        assert self._exit is not None  # noqa: S101  (_start has set it)
        async with asyncio.timeout(seconds):
            while not condition() and not self._exit.done():
                cell.changed.clear()
                waiter = asyncio.ensure_future(cell.changed.wait())
                try:
                    await asyncio.wait({waiter, self._exit}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waiter.cancel()

    async def run(self, code: str, limit_seconds: float, *, silent: bool = False) -> CellResult:
        """Run one cell and return what came of it; never raises for anything the cell does.

        Args:
            code: Python source.
            limit_seconds: Seconds after which the cell is interrupted, and killed if that does not stop it in a second.
            silent: Do not count it and keep it out of the history.
        """
        started = time.monotonic()
        self._received = 0
        cell = self._cell = _Cell("", OutputCollector(self._factory.output_limits))
        timed_out = False
        try:
            if self.alive:
                await self._send(cell, "execute_request", _execute_content(code, silent))
                try:
                    await self._until(cell, lambda: cell.half_finished, limit_seconds)
                    await self._other_half(cell)
                except TimeoutError:
                    timed_out = True
                    await self._stop(cell)
        except asyncio.CancelledError:
            # Nobody waits for this cell any more and it may run on: the kernel's state is unknown.
            await self.kill(KillCause.CLOSED)
            raise
        finally:
            self._cell = None
        if not self.alive and not cell.finished and not timed_out:
            cell.collector.add("error", self._death_certificate())
        reply = cell.reply or {}
        failed = cell.collector.error is not None or reply.get("status", "ok") != "ok"
        return CellResult(
            status=CellStatus.TIMEOUT if timed_out else CellStatus.ERROR if failed else CellStatus.OK,
            outputs=cell.collector.outputs,
            execution_count=reply.get("execution_count"),
            msg_id=cell.msg_id,
            state_lost=not self.alive,
            truncated=cell.collector.truncated or reply.get("truncated") is True,
            seconds=time.monotonic() - started,
        )

    async def _other_half(self, cell: _Cell) -> None:
        try:
            await self._until(cell, lambda: cell.finished, _OTHER_HALF_SECONDS)
        except TimeoutError:
            cell.collector.truncated = True
            cell.collector.note("[output may be missing: the kernel sent a message larger than the limit]")

    async def _stop(self, cell: _Cell) -> None:
        """Interrupt a cell; kill the kernel when that does not end it."""
        signal_group(self.pid, signal.SIGINT)
        try:
            await self._until(cell, lambda: cell.finished, INTERRUPT_GRACE_SECONDS)
        except TimeoutError:
            await self.kill(KillCause.TIMEOUT)

    def _death_certificate(self) -> Output:
        """Why there is no reply, as the error that the caller sees."""
        if self.killed_for is KillCause.OUTPUT:
            mib = self._factory.output_limits.flood_bytes // 2**20
            ename, evalue = "OutputLimitExceeded", f"the cell sent over {mib} MiB of output and its kernel was killed"
        elif self.killed_for in (None, KillCause.DIED):
            ename, evalue = "KernelDied", f"the kernel died ({_describe_exit(self._exit)}); all variables are lost"
        else:
            ename, evalue = "SessionClosed", "the session was closed while the cell ran"
        return error_output(ename, evalue, [f"{ename}: {evalue}"], 4096)

    async def kill(self, cause: KillCause) -> None:
        """End the kernel with everything it started and remove its folder.

        Safe to call again and from several tasks: the first cause stands, and all return when it is done.
        """
        if self._ending is None:
            died_by_itself = self._exit is not None and self._exit.done()
            self.killed_for = KillCause.DIED if died_by_itself else cause
            self._ending = asyncio.create_task(self._end(), name=f"kernel {self.id} end")
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if self._process is not None and self._exit is not None:
            # Also after a natural death: its children are still in its group.
            await asyncio.to_thread(kill_tree, self._process.pid)
            await self._exit
            self._factory.pids.discard(self._process.pid)
        for reader in self._readers:
            reader.cancel()
        if self._client is not None:
            # Unread floods must not be waited for.
            self._client.shell_channel.socket.linger = 0
            self._client.iopub_channel.socket.linger = 0
            self._client.stop_channels()
        await asyncio.to_thread(_remove_tree, self.folder)


def _execute_content(code: str, silent: bool) -> dict[str, Any]:
    """Content of an execute request: nobody is there to type, and later cells do not depend on this one's luck."""
    return {
        "code": code,
        "silent": silent,
        "store_history": not silent,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }


def _remove_tree(folder: Path) -> None:
    """Remove a folder that a cell has filled, folders without permissions included."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        for path, names, _ in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    (Path(path) / name).chmod(0o700, follow_symlinks=False)
        shutil.rmtree(folder, ignore_errors=True)


def _describe_exit(exit_task: asyncio.Task[int] | None) -> str:
    code = exit_task.result() if exit_task is not None and exit_task.done() else 0
    if code < 0:
        name = signal.Signals(-code).name
        return f"{name}, probably out of memory" if -code == signal.SIGKILL else name
    return f"exit code {code}"


# Nothing else of the server's environment reaches a kernel: it may hold secrets, and it is nobody's business.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")


def kernel_environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a kernel whose private folder is ``folder``."""
    return {
        **{name: environ[name] for name in _PASSED_ON if name in environ},
        "HOME": str(folder / "work"),
        "TMPDIR": str(folder / "work"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        # Each thread costs address space and several kernels share few cores.
        "OPENBLAS_NUM_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "MALLOC_ARENA_MAX": "2",
    }
