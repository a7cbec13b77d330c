"""How much memory the kernels' container has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from s1vl_sandbox.limits import KernelLimits

# cgroup v2, then v1, as a container sees its own.
_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
# cgroup v1 says "no limit" with a number near 2**63.
_NONE_BYTES = 1 << 60
_ONE_KERNEL = 0.75


def container_bytes(files: tuple[Path, ...] = _FILES) -> int:
    """The memory limit of this container; 0 if it has none or does not say."""
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() and int(text) < _NONE_BYTES else 0
    return 0


def within(limits: KernelLimits, container: int) -> KernelLimits:
    """The limits, with one kernel's address space at most three quarters of the container's memory.

    A kernel that hits its own limit gets a `MemoryError`. One that hits the container's is killed, and on a node with
    cgroup v2 the whole container with it, other sessions' kernels included.
    """
    most = int(container * _ONE_KERNEL)
    if most and (not limits.memory_bytes or limits.memory_bytes > most):
        return replace(limits, memory_bytes=most)
    return limits
