"""What no rlimit holds: how many processes a kernel has, and how much its folder takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from s1vl_sandbox import folders
from s1vl_sandbox.kernels.family import Child
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.processes import descendants, parents

INTERVAL_SECONDS = 0.1
_MEASURE_SECONDS = 1.0
# Entries of one folder looked at in one round: a full folder must not keep the host from its other children.
_ENTRIES_A_ROUND = 1000

_LOADAVG = Path("/proc/loadavg")


class Watch:
    """Finds the kernels that are over a limit which is watched."""

    def __init__(self, limits: KernelLimits) -> None:
        self._limits = limits
        self._last_pid: str | None = None

    def offenders(self, kernels: list[Child]) -> Iterator[tuple[Child, str]]:
        """Look once; give each kernel that must be ended, and the cause."""
        if self._limits.processes and self._new_processes():
            tree = parents()
            for child in kernels:
                if len(descendants(child.pid, tree)) + 1 > self._limits.processes:
                    yield child, "processes"
        now = time.monotonic()
        for child in kernels:
            if self._disk_is_full(child, now):
                yield child, "disk"

    def _new_processes(self) -> bool:
        """Whether any process was started since the last look; a look at all of them costs milliseconds."""
        try:
            last = _LOADAVG.read_text().split()[4]
        except (OSError, IndexError):
            return True
        changed = last != self._last_pid
        self._last_pid = last
        return changed

    def _disk_is_full(self, child: Child, now: float) -> bool:
        if child.usage is None:
            if now - child.measured < _MEASURE_SECONDS:
                return False
            child.usage = folders.measure(child.folder, _ENTRIES_A_ROUND)
        usage = next(iter(child.usage), None)
        if usage is None:
            child.usage, child.measured = None, now
            return False
        limits = self._limits
        return bool(
            (limits.disk_bytes and usage.disk_bytes > limits.disk_bytes)
            or (limits.disk_entries and usage.entries > limits.disk_entries)
        )
