"""Ending processes for good: a kernel, everything it started, and what tried to slip away.

A kernel is the leader of its own process session, so one signal reaches its whole group. Children that leave the
group stay in its tree, because every kernel is a "child subreaper": their orphans are handed to the kernel, and once
that is gone, to the server, which is one too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

_PROC = Path("/proc")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def become_subreaper() -> None:
    """Have orphaned descendants handed to this process instead of to PID 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have this process killed when the thread that started it ends; end it now if ``parent`` is gone already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have been killed before the line above: no signal comes any more, and this would live forever.
    if os.getppid() != parent:
        sys.exit("the server that started this kernel is gone")


def hide_from_peers() -> None:
    """Keep processes of the same user id from tracing this one and from reading its memory and environment."""
    _prctl(_PR_SET_DUMPABLE, 0)


def parents() -> dict[int, int]:
    """Every visible process and its parent, zombies included."""
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The command name is in brackets and may itself hold brackets and spaces.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                found[int(entry.name)] = int(fields[1])
    return found


def descendants(root: int) -> set[int]:
    """Process ids below ``root``, not including it."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def signal_group(leader: int, number: int) -> None:
    """Send a signal to the process group led by ``leader``; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


def kill_tree(leader: int) -> None:
    """SIGKILL the group led by ``leader`` and every descendant that left it.

    The descendants are looked up while the leader still lives: afterwards nothing tells whose they were.
    """
    others = descendants(leader)
    signal_group(leader, signal.SIGKILL)
    for pid in others:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def children() -> set[int]:
    """Direct children of this process, zombies included."""
    me = os.getpid()
    return {pid for pid, parent in parents().items() if parent == me}


def end_children(pids: Iterable[int]) -> int:
    """Kill and reap direct children of this process; return how many were reaped.

    One that is not quite dead yet is reaped when it is asked for again.
    """
    reaped = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            reaped += os.waitpid(pid, os.WNOHANG)[0] == pid
    return reaped
