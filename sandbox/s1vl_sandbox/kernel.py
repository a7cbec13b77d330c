"""One kernel and the conversation with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.session import Session as Messages

from s1vl_sandbox.cells import (
    CellResult,
    CellStatus,
    Exit,
    KernelStartError,
    KillCause,
    RunningCell,
    death_certificate,
    execute_content,
)
from s1vl_sandbox.grants import SessionGrants
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.link import HostedKernel, HostLink
from s1vl_sandbox.outputs import Output, OutputCollector, OutputLimits

# How long an interrupted cell may take to stop before its processes are killed.
INTERRUPT_GRACE_SECONDS = 1.0
# Reply and "idle" come over two sockets; when a hostile or huge message cost us one of them, the other decides.
_OTHER_HALF_SECONDS = 1.0
_ANSWER_TIMEOUT_SECONDS = 60.0
# Names of the kernel's sockets, after ipykernel's numbers for "shell" and "iopub".
_SHELL, _IOPUB = "s-1", "s-2"
_MOST_KEY_BYTES = 1024


@dataclass(frozen=True)
class KernelFactory:
    """What all kernels of one server have in common.

    Attributes:
        link: The way to the host that starts them.
        limits: Limits of the kernel processes, which the host enforces.
        output_limits: Bounds of each cell's output.
        context: ZeroMQ context of the server.
    """

    link: HostLink
    limits: KernelLimits
    output_limits: OutputLimits
    context: zmq.asyncio.Context

    async def start(self, grants: SessionGrants) -> Kernel:
        """Start a kernel and wait until it answers.

        Raises:
            KernelStartError: If it ends or does not answer within a minute.
            WorkingDirectoryError: It may not use the granted working directory.
        """
        kernel = Kernel(self, await self.link.start(grants))
        try:
            await kernel._greet()
        except BaseException:
            await kernel.kill(KillCause.UNHEALTHY)
            raise
        return kernel


class Kernel:
    """One kernel process with a folder of its own.

    Make it with :meth:`KernelFactory.start`. Cells must be run one at a time (the session sees to it).
    """

    def __init__(self, factory: KernelFactory, process: HostedKernel) -> None:
        self.killed_for: KillCause | None = None
        self._factory = factory
        self._process = process
        self._messages: Messages | None = None
        self._sockets: list[zmq.asyncio.Socket] = []
        self._readers: list[asyncio.Task[None]] = []
        self._cell: RunningCell | None = None
        self._received = 0
        self._flood: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Process id of the kernel as its host sees it, also the id of its process group."""
        return self._process.pid

    @property
    def work_dir(self) -> Path:
        """The folder that the kernel's session has for itself."""
        return self._process.folder / "work"

    @property
    def warm(self) -> bool:
        """Whether it was prepared before somebody asked."""
        return self._process.warm

    @property
    def alive(self) -> bool:
        """Whether cells can still run in it."""
        return self.killed_for is None and not self._process.exit.done()

    async def _greet(self) -> None:
        """Connect, ask who it is and wait until both sockets have answered: iopub drops what it sends to nobody."""
        self._messages = Messages(key=self._take_key(), signature_scheme="hmac-sha256", username="s1vl")
        cell = self._cell = RunningCell("", OutputCollector(self._factory.output_limits), greeting=True)
        shell, iopub = self._socket(zmq.DEALER), self._socket(zmq.SUB)
        iopub.subscribe(b"")
        for socket, name in ((shell, _SHELL), (iopub, _IOPUB)):
            socket.connect(f"ipc://{self._process.folder / name}")
            self._readers.append(asyncio.create_task(self._read(socket), name=f"kernel {self.pid} {name}"))
        await self._send(cell, "kernel_info_request", {})
        try:
            await self._until(cell, lambda: cell.finished, _ANSWER_TIMEOUT_SECONDS)
        except TimeoutError:
            raise KernelStartError(f"kernel gave no answer in {_ANSWER_TIMEOUT_SECONDS:.0f} s") from None
        if not cell.finished:
            raise KernelStartError(f"the kernel died at its start ({self._process.exit.result()})")
        self._cell = None

    def _take_key(self) -> bytes:
        """Read the key and remove its file; it now lives in two memories only."""
        path = self._process.folder / "key"
        try:
            with path.open("rb") as file:
                key = file.read(_MOST_KEY_BYTES)
            path.unlink()
        except OSError as error:
            raise KernelStartError(f"the kernel's key cannot be read: {error}") from error
        return key

    def _socket(self, kind: int) -> zmq.asyncio.Socket:
        socket = self._factory.context.socket(kind)
        # Unread floods must not be waited for at the end.
        socket.linger = 0
        self._sockets.append(socket)
        return socket

    async def _send(self, cell: RunningCell, msg_type: str, content: dict[str, Any]) -> None:
        """Send a request on the shell channel and make ``cell`` listen for what comes back."""
        assert self._messages is not None  # noqa: S101  (_greet has set it)
        message = self._messages.msg(msg_type, content)
        cell.msg_id = message["header"]["msg_id"]
        await self._sockets[0].send_multipart(self._messages.serialize(message))

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        """Receive for as long as the kernel lives, cell or no cell, so that nothing piles up on either side."""
        assert self._messages is not None  # noqa: S101  (_greet has set it)
        while True:
            frames = await socket.recv_multipart()
            self._received += sum(map(len, frames))
            if self._received > self._factory.output_limits.flood_bytes:
                self._flood = asyncio.create_task(self.kill(KillCause.OUTPUT))
                return
            try:
                message = self._messages.deserialize(self._messages.feed_identities(frames)[1])
            except (ValueError, TypeError, KeyError, RecursionError):
                # Only a kernel whose code writes to the sockets itself gets here; what it says is not a message.
                continue
            self._handle(message)

    def _handle(self, message: dict[str, Any]) -> None:
        cell = self._cell
        parent, content = message.get("parent_header"), message.get("content")
        if cell is None or not isinstance(content, dict) or not isinstance(parent, dict):
            return
        msg_type = message.get("msg_type")
        if msg_type == "iopub_welcome" and cell.greeting:
            # The subscription holds. Asked before it did, the kernel's "idle" may have gone to nobody.
            cell.idle = True
            cell.changed.set()
            return
        if parent.get("msg_id") != cell.msg_id:
            return
        if msg_type in ("execute_reply", "kernel_info_reply"):
            cell.reply = content
        elif msg_type == "status":
            cell.idle = cell.idle or content.get("execution_state") == "idle"
        else:
            cell.collector.add(str(msg_type), content)
            return
        cell.changed.set()

    async def _until(self, cell: RunningCell, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until ``condition()`` holds or the kernel is gone.

        Raises:
            TimeoutError: After ``seconds``.
        """
        ended = self._process.exit
        async with asyncio.timeout(seconds):
            while not condition() and not ended.done():
                cell.changed.clear()
                waiter: asyncio.Future[Any] = asyncio.ensure_future(cell.changed.wait())
                try:
                    await asyncio.wait({waiter, ended}, return_when=asyncio.FIRST_COMPLETED)
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
        cell = self._cell = RunningCell("", OutputCollector(self._factory.output_limits))
        timed_out = False
        try:
            if self.alive:
                await self._send(cell, "execute_request", execute_content(code, silent))
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
            await self._know_why()
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

    async def _other_half(self, cell: RunningCell) -> None:
        try:
            await self._until(cell, lambda: cell.finished, _OTHER_HALF_SECONDS)
        except TimeoutError:
            cell.collector.truncated = True
            cell.collector.note("[output may be missing: the kernel sent a message larger than the limit]")

    async def _stop(self, cell: RunningCell) -> None:
        """Interrupt a cell; kill the kernel when that does not end it."""
        self._factory.link.interrupt(self._process.id)
        try:
            await self._until(cell, lambda: cell.finished, INTERRUPT_GRACE_SECONDS)
        except TimeoutError:
            await self.kill(KillCause.TIMEOUT)

    async def _know_why(self) -> None:
        """Take the cause of a death that nobody here wished."""
        if self.killed_for is None:
            await self.kill(KillCause.DIED)

    def _death_certificate(self) -> Output:
        end = self._end()
        return death_certificate(self.killed_for, end, self._factory.limits, self._factory.output_limits)

    def _end(self) -> Exit | None:
        return self._process.exit.result() if self._process.exit.done() else None

    async def kill(self, cause: KillCause) -> None:
        """End the kernel with everything it started and remove its folder.

        Safe to call again and from several tasks: the first cause stands, and all return when it is done.
        """
        if self._ending is None:
            end = self._end()
            self.killed_for = cause if end is None else end.cause or KillCause.DIED
            self._ending = asyncio.create_task(self._finish(), name=f"kernel {self.pid} end")
        await asyncio.shield(self._ending)

    async def _finish(self) -> None:
        self._factory.link.kill(self._process.id)
        await self._factory.link.removed(self._process)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for socket in self._sockets:
            socket.close()
