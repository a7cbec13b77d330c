"""Confining a kernel process before it runs a stranger's code: Landlock for files and signals, seccomp for the rest.

Both need no privilege, so that Pod Security `restricted` admits the pod, and both are irrevocable.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

import s1vl_sandbox
from s1vl_sandbox.containment import landlock, syscalls
from s1vl_sandbox.containment.policy import Grants, Isolation, Protection, isolation, rules

__all__ = ["ContainmentError", "Grants", "Isolation", "Protection", "confine", "probe"]

_PR_SET_NO_NEW_PRIVS = 38


class ContainmentError(RuntimeError):
    """A process could not be confined: no stranger's code may run in it. The text names step and errno."""


def probe() -> Isolation:
    """Ask this node's kernel which protections :func:`confine` puts in place. Changes nothing in the caller.

    A host should call it before it forks: it also makes the filter that its children then inherit.
    """
    return isolation(landlock.abi(), syscalls.available())


def confine(grants: Grants) -> None:
    """Confine the calling process to ``grants`` and the fixed base, for good, with all it will ever start.

    As much is put in place as the node's kernel knows; :func:`probe` tells what that comes to. To be called in a
    forked child that has one thread. What the filter forbids must have been done before: `setsid`, the death signal,
    becoming a subreaper, changing the user. Open descriptors stay usable whatever the grants are.

    Raises:
        ContainmentError: A grant is missing, is not a resolved path or has a symbolic link in it; there are several
            threads; the kernel refuses. The process may be confined in part and must end.
    """
    found = probe()
    _require_one_thread()
    try:
        openings = rules(grants, libraries())
        if found.landlock_abi or Protection.SYSCALLS in found.held:
            _no_new_privileges()
        if found.landlock_abi:
            landlock.restrict(openings, found.landlock_abi)
        if Protection.SYSCALLS in found.held:
            syscalls.restrict()
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        raise ContainmentError(f"cannot confine this process: {name}: {error}") from error
    except ValueError as error:
        raise ContainmentError(f"cannot confine this process: {error}") from error


def libraries() -> list[Path]:
    """Where Python, its packages and this one lie."""
    return [Path(sys.base_prefix), Path(sys.prefix), Path(s1vl_sandbox.__file__).parent]


def _require_one_thread() -> None:
    # Not threading.active_count(): threads of C libraries would stay unconfined, too.
    count = sum(1 for _ in Path("/proc/self/task").iterdir()) if sys.platform == "linux" else 1
    if count != 1:
        raise ContainmentError(f"cannot confine this process: it has {count} threads, and each would need its own")


def _no_new_privileges() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"no_new_privs: {os.strerror(code)}")
