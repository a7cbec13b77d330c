"""The server's end of the connection to the kernel host."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from s1vl_sandbox.cells import Exit, KernelStartError, KillCause, WorkingDirectoryError
from s1vl_sandbox.grants import SessionGrants
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.protocol import Lines, Message, ProtocolError, encode, kernels_folder, socket_path

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Looking costs next to nothing, and whoever waits for the first kernel waits for this.
_LOOK_SECONDS = 0.03
# A host that ends as soon as it is started is started no more often.
_RESTART_SECONDS = 0.2
# A host imports for a second or two and its container may just be starting anew.
_WAIT_SECONDS = 20.0
_START_SECONDS = 60.0
_HOST_END_SECONDS = 15.0
# A host on whose loop something weighs may answer late; one that never does must not keep a session from closing.
_REMOVE_SECONDS = 30.0


@dataclass
class HostedKernel:
    """A kernel process of the host.

    Attributes:
        id: The server's name for it.
        pid: Its process id, as the host sees it.
        folder: Its folder, with its sockets and for a moment its key.
        warm: It was ready to be had.
        exit: Done when the process has ended.
        removed: Done when its folder is gone, too.
    """

    id: str
    pid: int
    folder: Path
    warm: bool
    exit: asyncio.Future[Exit]
    removed: asyncio.Future[None]


@dataclass
class _Pending:
    """A kernel that was asked for."""

    started: asyncio.Future[Message] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    exit: asyncio.Future[Exit] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    removed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class HostLink:
    """Keeps a connection to the host, and the host itself when it is a child of this server.

    Args:
        state_dir: Folder that server and host share.
        limits: Limits of the kernels.
        warm: How many processes the host keeps prepared.
        spawn: Start the host; else it lives in another container.
        on_change: Called when the connection comes or goes and when the number of prepared processes changes.
    """

    def __init__(
        self, state_dir: Path, limits: KernelLimits, warm: int, *, spawn: bool, on_change: Callable[[], None]
    ) -> None:
        self._state_dir = state_dir
        self._configure = encode("configure", limits=asdict(limits), warm=warm)
        self._spawn = spawn
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.starting = False
        """A child process of ours may not be known yet."""
        self._connected = asyncio.Event()
        self._pending: dict[str, _Pending] = {}
        self._task: asyncio.Task[None] | None = None
        self.hello: Message = {}
        """The host's greeting; empty before the first."""
        self.warm = 0
        """Processes that are prepared."""
        self.problem: str | None = "the kernel host is starting"
        """Why no kernel can be had; None if one can."""

    @property
    def pids(self) -> set[int]:
        """The host, if it is ours."""
        return {self._process.pid} if self._process is not None else set()

    def open(self) -> None:
        """Begin to connect, and to do so again whenever the connection is lost."""
        self._task = asyncio.create_task(self._keep(), name="kernel host")

    async def close(self) -> None:
        """Close the connection, which ends every kernel; end the host if it is ours."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._lose("the server is shutting down")
        await self._end_host()

    async def start(self, grants: SessionGrants) -> HostedKernel:
        """Have a kernel started.

        Raises:
            KernelStartError: There is no host within 20 s, or the kernel does not start.
            WorkingDirectoryError: The kernel may not use its working directory.
        """
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            raise KernelStartError(self.problem or "the kernel host does not answer") from None
        kernel_id, pending = uuid.uuid4().hex, _Pending()
        self._pending[kernel_id] = pending
        self._say("start", id=kernel_id, read=grants.read, write=grants.write, cwd=grants.cwd)
        try:
            async with asyncio.timeout(_START_SECONDS):
                answer = await pending.started
        except TimeoutError:
            self.kill(kernel_id)
            raise KernelStartError(f"the kernel host did not start a kernel in {_START_SECONDS:.0f} s") from None
        except asyncio.CancelledError:
            self.kill(kernel_id)
            raise
        if answer["type"] == "failed":
            self._pending.pop(kernel_id, None)
            if answer["kind"] == "cwd":
                raise WorkingDirectoryError(f"cwd {str(grants.cwd)[:200]!r}: {answer['why']}")
            raise KernelStartError(answer["why"])
        folder = kernels_folder(self._state_dir) / Path(answer["folder"]).name
        return HostedKernel(kernel_id, answer["pid"], folder, answer["warm"], pending.exit, pending.removed)

    def interrupt(self, kernel_id: str) -> None:
        """Send SIGINT to a kernel and what it started."""
        self._say("interrupt", id=kernel_id)

    def kill(self, kernel_id: str) -> None:
        """Have a kernel and everything it started killed."""
        self._say("kill", id=kernel_id)

    async def removed(self, kernel: HostedKernel) -> None:
        """Wait until a killed kernel has left nothing, or half a minute."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REMOVE_SECONDS):
                await asyncio.shield(kernel.removed)

    def _say(self, type_: str, **fields: object) -> None:
        if self._writer is not None:
            self._writer.write(encode(type_, **fields))

    async def _keep(self) -> None:
        while True:
            pause = _LOOK_SECONDS
            try:
                if self._spawn and (self._process is None or self._process.returncode is not None):
                    pause = _RESTART_SECONDS
                    await self._start_host()
                reader, self._writer = await asyncio.open_unix_connection(str(socket_path(self._state_dir)))
                why = await self._listen(reader)
            except (OSError, ProtocolError) as error:
                why = f"{type(error).__name__}: {error}"
            self._lose(f"the kernel host is not there: {why}{self._host_end()}")
            await asyncio.sleep(pause)

    async def _start_host(self) -> None:
        command = ("-m", "s1vl_sandbox", "kernels", "--parent", str(os.getpid()))
        self.starting = True
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *command),
                env={**os.environ, "S1VL_SANDBOX_STATE_DIR": str(self._state_dir)},
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            self.starting = False

    def _host_end(self) -> str:
        code = None if self._process is None else self._process.returncode
        return "" if code is None else f" (it ended with {code})"

    async def _end_host(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(_HOST_END_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _listen(self, reader: asyncio.StreamReader) -> str:
        lines = Lines()
        while data := await reader.read(65536):
            for message in lines.feed(data):
                self._hear(message)
        return "it has closed its connection"

    def _hear(self, message: Message) -> None:
        pending = self._pending.get(message.get("id", ""))
        match message["type"]:
            case "hello":
                self.hello = message
                self._say_configure()
                self.problem = None
                self._connected.set()
                self._on_change()
            case "warm":
                self.warm = message["count"]
                self._on_change()
            case "unprepared":
                _log.warning("the host could not prepare a kernel", extra={"why": message["why"]})
            case "started" | "failed" if pending is not None:
                _set(pending.started, message)
            case "exited" if pending is not None:
                cause = message["cause"]
                _set(pending.exit, Exit(message["code"], message["signal"], KillCause(cause) if cause else None))
            case "removed" if pending is not None:
                _set(pending.removed, None)
                del self._pending[message["id"]]

    def _say_configure(self) -> None:
        if self._writer is not None:
            self._writer.write(self._configure)

    def _lose(self, why: str) -> None:
        if self._connected.is_set():
            _log.warning("lost the kernel host", extra={"why": why})
        self.problem, self.warm = why, 0
        self._connected.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for kernel_id, pending in self._pending.items():
            _set(pending.started, {"type": "failed", "id": kernel_id, "kind": "start", "why": why})
            _set(pending.exit, Exit(None, None, KillCause.HOST_LOST))
            _set(pending.removed, None)
        self._pending.clear()
        self._on_change()


def _set(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():
        future.set_result(value)
