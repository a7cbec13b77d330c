"""The host's children: forking, ending and reaping them, and removing what they leave."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import NoReturn, Protocol

from s1vl_sandbox import folders
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.processes import kill_strays, kill_tree, signal_group
from s1vl_sandbox.removal import remove_tree

_log = logging.getLogger(__name__)

# Up to so many entries are removed at once; more would keep the host from its other children for too long.
_FEW_ENTRIES = 200


class State(Enum):
    """Where a child is in its life."""

    PREPARING = auto()
    WAITING = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDING = auto()


@dataclass
class Child:
    """One forked process.

    Attributes:
        pid: Its process id, also that of its process group.
        folder: Its own folder.
        channel: Our end of the socket to it; closed once it is a kernel.
        state: Where it is in its life.
        id: The server's name for the kernel; None while it is nobody's.
        warm: It had prepared before somebody asked.
        cause: Why the host ended it by itself.
        usage: A measurement of the folder that is going on.
        measured: When the last one ended, seconds.
    """

    pid: int
    folder: Path
    channel: socket.socket
    state: State = State.PREPARING
    id: str | None = None
    warm: bool = False
    cause: str | None = None
    usage: Iterable[folders.Usage] | None = None
    measured: float = 0.0


@dataclass(frozen=True)
class Ended:
    """A child that is dead and reaped; exactly one of ``code`` and ``signal`` is set."""

    child: Child
    code: int | None
    signal: int | None


class Life(Protocol):
    """What a forked child does; never returns."""

    def __call__(self, channel: socket.socket, folder: Path, limits: KernelLimits, host: int) -> NoReturn:
        """Live until the end of the process."""


class Family:
    """All children of the host, and the folder in which each has its own.

    Args:
        root: That folder; what is left in it by an earlier host is removed.
        live: What a forked child does.
        close_in_child: Closes in a forked child what only the host may hold.
    """

    def __init__(self, root: Path, live: Life, close_in_child: Callable[[], None]) -> None:
        self._root = root
        self._live = live
        self._close_in_child = close_in_child
        self.children: dict[int, Child] = {}
        self._sweepers: dict[int, Child] = {}
        root.mkdir(exist_ok=True)
        root.chmod(0o770)
        for left in root.iterdir():
            _remove(left)

    @property
    def busy(self) -> bool:
        """Whether something is being ended or removed."""
        return bool(self._sweepers) or any(child.state is State.ENDING for child in self.children.values())

    def fork(self, limits: KernelLimits) -> Child:
        """Make a child.

        Raises:
            OSError: No folder or no process can be made.
        """
        folder = self._root / secrets.token_hex(8)
        folder.mkdir()
        folder.chmod(0o770)
        (folder / "work").mkdir()
        (folder / "work").chmod(0o770)
        ours, theirs = socket.socketpair()
        host = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            _remove(folder)
            raise
        if pid == 0:
            try:
                ours.close()
                self._close_in_child()
                for other in self.children.values():
                    other.channel.close()
                # Names of the others' folders are nobody's business.
                self.children.clear()
                self._live(theirs, folder, limits, host)
            finally:
                os._exit(1)
        theirs.close()
        ours.setblocking(False)
        child = Child(pid, folder, ours)
        self.children[pid] = child
        return child

    def by_id(self, kernel_id: str) -> Child | None:
        """The child of that name, dead or alive but not reaped."""
        return next((child for child in self.children.values() if child.id == kernel_id), None)

    def kill(self, child: Child, cause: str | None = None) -> None:
        """Kill a child with everything it started; :meth:`reap` gives it when it is dead."""
        if child.state is not State.ENDING:
            child.state = State.ENDING
            child.cause = cause
            kill_tree(child.pid)

    def reap(self) -> tuple[list[Ended], list[Child]]:
        """Collect the children that have died since, and those whose folder is gone since."""
        ended, removed = [], []
        with contextlib.suppress(ChildProcessError):
            while (info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                pid = info.si_pid
                if pid in self.children:
                    # While the leader is a zombie, its group's number cannot be anyone else's.
                    signal_group(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                if (child := self.children.pop(pid, None)) is not None:
                    by_code = info.si_code == os.CLD_EXITED
                    ended.append(Ended(child, info.si_status if by_code else None, None if by_code else info.si_status))
                elif (swept := self._sweepers.pop(pid, None)) is not None:
                    removed.append(swept)
        if ended:
            strays = kill_strays({*self.children, *self._sweepers})
            if strays:
                _log.info("ended processes that had outlived their kernel", extra={"count": strays})
        for one in ended:
            one.child.channel.close()
            if self._sweep(one.child):
                removed.append(one.child)
        return ended, removed

    def _sweep(self, child: Child) -> bool:
        """Remove a child's folder, now (True) or in a process of its own."""
        few = sum(1 for _ in itertools.islice(folders.measure(child.folder, 1), _FEW_ENTRIES)) < _FEW_ENTRIES
        if not few:
            with contextlib.suppress(OSError):
                pid = os.fork()
                if pid == 0:
                    try:
                        self._close_in_child()
                        _remove(child.folder)
                    finally:
                        os._exit(0)
                self._sweepers[pid] = child
                return False
        _remove(child.folder)
        return True

    def end_all(self, seconds: float) -> None:
        """Kill all children and wait until they are gone with their folders."""
        for child in list(self.children.values()):
            self.kill(child)
        deadline = time.monotonic() + seconds
        while (self.children or self._sweepers) and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.002)


def _remove(folder: Path) -> None:
    try:
        remove_tree(folder)
    except OSError:
        _log.exception("a kernel's folder cannot be removed")
