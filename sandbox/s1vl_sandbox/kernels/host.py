"""The kernel host: a loop in one thread, for it forks. See :mod:`s1vl_sandbox.protocol` for what it says."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s1vl_sandbox.kernels.child import live
from s1vl_sandbox.kernels.family import Child, Ended, Family, State
from s1vl_sandbox.kernels.memory import container_bytes, within
from s1vl_sandbox.kernels.peer import Peer
from s1vl_sandbox.kernels.watch import INTERVAL_SECONDS, Watch
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.processes import signal_group
from s1vl_sandbox.protocol import Lines, Message, ProtocolError, encode, kernels_folder, socket_path

_log = logging.getLogger(__name__)

_SOON_SECONDS = 0.005
_IDLE_SECONDS = 1.0
_RETRY_SECONDS = 1.0
_END_SECONDS = 10.0
# One word of the server is soon followed by another.
_YIELD_SECONDS = 0.1
# What a step of importing does not give.
_END = object()
# Embryos and kernels that are starting, at once: more than cores only delay the first of them.
_MOST_STARTING = max(1, os.cpu_count() or 1)


class Host:
    """Serves one server at a time; its kernels live as long as its connection.

    Args:
        state_dir: Folder for the socket and the kernels' folders.
        facts: Fields of the greeting that every server gets.
        parent: Process with which to end; None to live until SIGTERM.
        imports: Each step imports a piece of what kernels had better find imported. No kernel is prepared ahead before
            the last one; those that a session waits for are started all the same, and import what they use.
    """

    def __init__(self, state_dir: Path, facts: Message, parent: int | None, imports: Iterator[None]) -> None:
        self._facts = {**facts, "boot": uuid.uuid4().hex}
        self._parent = parent
        self._imports: Iterator[None] | None = imports
        self._selector = selectors.DefaultSelector()
        self._server: Peer | None = None
        self._limits: KernelLimits | None = None
        self._watch: Watch | None = None
        self._warm = 0
        self._told_warm = -1
        self._queue: deque[Message] = deque()
        self._import_at = 0.0
        self._retry_at = 0.0
        self._watch_at = 0.0
        self._terms = 0
        self._served = False
        self._family = Family(kernels_folder(state_dir), live, self._close)
        self._path = socket_path(state_dir)
        self._listener = self._listen(self._path)
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ, self._woken)

    def _listen(self, path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(4)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        return listener

    def _close(self) -> None:
        """In a forked child: let go of what is the host's."""
        self._selector.close()
        for end in (self._listener, self._wake, self._waker):
            end.close()
        if self._server is not None:
            self._server.let_go()
        self._queue.clear()

    def run(self) -> None:
        """Serve until the parent or its connection is gone, or until SIGTERM; then on as long as a server is connected.

        A second SIGTERM is the end.
        """
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, signal.SIG_IGN if self._parent else self._terminate)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while not self._done():
            for key, events in self._selector.select(self._patience()):
                key.data(events)
            self._tell_of_the_dead()
            self._start_waiting()
            self._import()
            self._fill()
            self._look()
        self._family.end_all(_END_SECONDS)
        self._path.unlink(missing_ok=True)

    def _terminate(self, *_: Any) -> None:
        self._terms += 1

    def _done(self) -> bool:
        if self._parent is not None and (os.getppid() != self._parent or (self._served and self._server is None)):
            return True
        return self._terms > 1 or (self._terms == 1 and self._server is None)

    def _patience(self) -> float:
        if self._may_import():
            return 0.0
        if self._family.busy or self._imports is not None:
            return _SOON_SECONDS
        return INTERVAL_SECONDS if self._running() else _IDLE_SECONDS

    def _woken(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake.recv(4096)

    def _accept(self, _: int) -> None:
        connection, _address = self._listener.accept()
        if self._server is not None:
            connection.close()
            return
        self._server, self._served = Peer(connection, self._selector, self._obey, self._lose_server), True
        self._send("hello", **self._facts)

    def _obey(self, message: Message) -> None:
        self._import_at = time.monotonic() + _YIELD_SECONDS
        match message["type"]:
            case "configure":
                self._limits = within(KernelLimits(**message["limits"]), container_bytes())
                self._watch = Watch(self._limits)
                self._warm = message["warm"]
            case "start":
                self._queue.append(message)
            case "interrupt":
                if (child := self._family.by_id(message["id"])) is not None:
                    signal_group(child.pid, signal.SIGINT)
            case "kill":
                self._kill(message["id"])
            case other:
                assert self._server is not None  # noqa: S101  (it said this)
                self._server.drop(f"it said {other!r}")

    def _kill(self, kernel_id: str) -> None:
        for order in self._queue:
            if order["id"] == kernel_id:
                self._queue.remove(order)
                self._send("exited", id=kernel_id, code=None, signal=signal.SIGKILL, cause=None)
                self._send("removed", id=kernel_id)
                return
        if (child := self._family.by_id(kernel_id)) is not None:
            self._family.kill(child)

    def _lose_server(self, why: str) -> None:
        """End every kernel: nobody can speak to them any more, and the next server may want other limits."""
        _log.info("the server is gone, ending its kernels", extra={"why": why})
        self._server, self._limits, self._watch, self._told_warm = None, None, None, -1
        self._queue.clear()
        for child in list(self._family.children.values()):
            self._family.kill(child)

    def _send(self, type_: str, **fields: Any) -> None:
        if self._server is not None:
            self._server.send(type_, **fields)

    def _in(self, *states: State) -> list[Child]:
        return [child for child in self._family.children.values() if child.state in states]

    def _running(self) -> list[Child]:
        return self._in(State.RUNNING)

    def _start_waiting(self) -> None:
        while self._queue and self._limits is not None and len(self._in(State.STARTING)) < _MOST_STARTING:
            embryos = self._in(State.WAITING) or self._in(State.PREPARING)
            child = embryos[0] if embryos else self._fork(self._limits)
            if child is None:
                order = self._queue.popleft()
                self._send("failed", id=order["id"], kind="start", why="no process can be forked")
                continue
            order = self._queue.popleft()
            child.warm = child.state is State.WAITING
            child.id, child.state = order["id"], State.STARTING
            try:
                child.channel.sendall(encode("start", read=order["read"], write=order["write"], cwd=order["cwd"]))
            except OSError as error:
                self._send("failed", id=child.id, kind="start", why=f"a child does not listen: {error}")
                self._family.kill(child)
            self._tell_warm()

    def _may_import(self) -> bool:
        """Whether there is something to import, and nothing that would have to wait for it."""
        if self._imports is None or self._queue or self._family.busy or self._in(State.STARTING):
            return False
        return time.monotonic() >= self._import_at

    def _import(self) -> None:
        if self._imports is not None and self._may_import() and next(self._imports, _END) is _END:
            self._imports = None

    def _fill(self) -> None:
        """Make one embryo at a time, and none while a session waits for its kernel: cells share these cores."""
        if self._limits is None or self._imports is not None or self._terms or time.monotonic() < self._retry_at:
            return
        if self._queue or self._in(State.STARTING, State.PREPARING) or len(self._in(State.WAITING)) >= self._warm:
            return
        self._fork(self._limits)

    def _fork(self, limits: KernelLimits) -> Child | None:
        try:
            child = self._family.fork(limits)
        except OSError:
            _log.exception("cannot make a child")
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            return None
        self._selector.register(child.channel, selectors.EVENT_READ, lambda _, child=child: self._hear(child, Lines()))
        return child

    def _hear(self, child: Child, lines: Lines) -> None:
        """Read what a child says, which is a line at a time: it waits for an answer to each."""
        try:
            messages = lines.feed(child.channel.recv(65536))
        except (OSError, ProtocolError):
            messages = []
        if not messages:
            self._hang_up(child)
        for message in messages:
            if message["type"] == "waiting":
                if child.state is State.PREPARING:
                    child.state = State.WAITING
                    self._tell_warm()
                continue
            self._hang_up(child)
            if message["type"] == "ready" and child.state is State.STARTING:
                child.state = State.RUNNING
                self._send("started", id=child.id, pid=child.pid, folder=child.folder, warm=child.warm)
            elif message["type"] == "failed":
                self._fail(child, message["kind"], message["why"])

    def _hang_up(self, child: Child) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.channel)
        child.channel.close()

    def _fail(self, child: Child, kind: str, why: str) -> None:
        if child.state is State.STARTING:
            self._send("failed", id=child.id, kind=kind, why=why)
        elif child.state in (State.PREPARING, State.WAITING):
            _log.error("a kernel could not be prepared: %s", why)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            self._send("unprepared", why=why)
        # It ends by itself; what follows needs no more words.
        child.id = None
        self._family.kill(child)

    def _tell_of_the_dead(self) -> None:
        before = {pid: child.state for pid, child in self._family.children.items()}
        for child in self._family.children.values():
            if child.state is State.ENDING:
                self._hang_up(child)
        ended, removed = self._family.reap()
        for one in ended:
            self._bury(one, before[one.child.pid])
        for child in removed:
            if child.id is not None:
                self._send("removed", id=child.id)
        self._tell_warm()

    def _bury(self, one: Ended, state: State) -> None:
        child = one.child
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.channel)
        how = f"exit code {one.code}" if one.signal is None else f"signal {one.signal}"
        if state is State.STARTING:
            self._send("failed", id=child.id, kind="start", why=f"the kernel ended at its start: {how}")
            child.id = None
        elif state in (State.PREPARING, State.WAITING):
            _log.error("a waiting kernel ended: %s", how)
            self._retry_at = time.monotonic() + _RETRY_SECONDS
        elif child.id is not None:
            self._send("exited", id=child.id, code=one.code, signal=one.signal, cause=child.cause)

    def _tell_warm(self) -> None:
        count = len(self._in(State.WAITING))
        if count != self._told_warm and self._limits is not None:
            self._told_warm = count
            self._send("warm", count=count)

    def _look(self) -> None:
        now = time.monotonic()
        if self._watch is None or now < self._watch_at:
            return
        self._watch_at = now + INTERVAL_SECONDS
        for child, cause in self._watch.offenders(self._running()):
            _log.warning("ending a kernel", extra={"cause": cause, "pid": child.pid})
            self._family.kill(child, cause)
