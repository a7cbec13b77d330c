"""Ending processes for good: a kernel, everything it started, and what tried to slip away.

A kernel is the leader of its own process session, so one signal reaches its whole group. Children that leave the
group stay in its tree, because every kernel is a "child subreaper": their orphans are handed to the kernel, and once
that is gone, to the kernel host, which is one too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

_PROC = Path("/proc")

# How often to look again for processes that were started while others were being stopped.
_MOST_LOOKS = 50


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
        sys.exit("the process that started this one is gone")


def hide_from_peers() -> None:
    """Keep processes of the same user id from tracing this one and from reading its memory and environment."""
    _prctl(_PR_SET_DUMPABLE, 0)


def offer_to_oom_killer(score: int) -> None:
    """Have this process end before others when memory runs out; more than the present score needs no privilege.

    The file belongs to root as long as the process is hidden from its peers, which it inherits from its parent.
    """
    _prctl(_PR_SET_DUMPABLE, 1)
    (_PROC / "self" / "oom_score_adj").write_text(str(score))
    hide_from_peers()


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


def descendants(root: int, tree: Mapping[int, int] | None = None) -> set[int]:
    """Process ids below ``root``, not including it; ``tree`` is what :func:`parents` gave, if it is known already."""
    below: dict[int, list[int]] = {}
    for pid, parent in (parents() if tree is None else tree).items():
        below.setdefault(parent, []).append(pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        for child in below.get(queue.pop(), ()):
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

    All are stopped first, again and again until no new one appears, so that what forks without end cannot outrun the
    killing. Nothing of it is reparented meanwhile: afterwards nothing would tell whose they were.
    """
    _kill_frozen(lambda: descendants(leader) | {leader})
    signal_group(leader, signal.SIGKILL)


def kill_strays(known: Collection[int]) -> int:
    """SIGKILL the direct children of this process that are not ``known``, and their trees; return how many there were.

    They have outlived the kernel that started them and were handed to this process, which is a subreaper.
    """
    return _kill_frozen(lambda: _strays(known))


def _strays(known: Collection[int]) -> set[int]:
    found = {pid for pid in children() if pid not in known and not is_zombie(pid)}
    return found.union(*(descendants(pid) for pid in found))


def _kill_frozen(find: Callable[[], set[int]]) -> int:
    frozen: set[int] = set()
    for _ in range(_MOST_LOOKS):
        new = find() - frozen
        if not new:
            break
        for pid in new:
            _signal(pid, signal.SIGSTOP)
        frozen |= new
    for pid in frozen:
        _signal(pid, signal.SIGKILL)
    return len(frozen)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits to be reaped; False if there is none."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def children() -> set[int]:
    """Direct children of this process, zombies included."""
    me = os.getpid()
    return {pid for pid, parent in parents().items() if parent == me}
