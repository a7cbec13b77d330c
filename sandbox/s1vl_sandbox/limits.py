"""Limits of kernels: what a kernel process puts on itself before any user code runs, and what the host watches.

Every kernel imports this module: it must stay light.
"""

from __future__ import annotations

import resource
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class KernelLimits:
    """Limits of one kernel; 0 means not set.

    The first four are rlimits, which hold for each process of a kernel by itself. The others are watched by the host,
    which ends a kernel that is over them. Processes are not an rlimit because RLIMIT_NPROC counts all of a user id on
    the whole node: pods would starve each other.

    Attributes:
        memory_bytes: Address space (RLIMIT_AS). Without it, one huge allocation makes the node kill the whole pod.
        file_bytes: Largest file (RLIMIT_FSIZE).
        open_files: File descriptors (RLIMIT_NOFILE).
        cpu_seconds: CPU time (RLIMIT_CPU), a backstop: cells have timeouts, what they leave running has none.
        processes: Processes of a kernel at once, itself included.
        disk_bytes: Space that its private folder takes.
        disk_entries: Files and folders in its private folder.
    """

    memory_bytes: int
    file_bytes: int
    open_files: int
    cpu_seconds: int
    processes: int = 64
    disk_bytes: int = 512 * 1024 * 1024
    disk_entries: int = 20_000

    def apply(self) -> None:
        """Set the rlimits, soft and hard, on the calling process. They can never be raised again by it.

        Raises:
            OSError: If a limit is above the hard limit that already holds.
        """
        _set(resource.RLIMIT_CORE, 0, always=True)
        _set(resource.RLIMIT_AS, self.memory_bytes)
        _set(resource.RLIMIT_FSIZE, self.file_bytes)
        _set(resource.RLIMIT_NOFILE, self.open_files)
        _set(resource.RLIMIT_CPU, self.cpu_seconds)

    def describe(self) -> dict[str, int | None]:
        """The limits that hold, for people; ``None`` where there is none."""
        return {name: value or None for name, value in asdict(self).items()}


def _set(which: int, value: int, *, always: bool = False) -> None:
    if value or always:
        resource.setrlimit(which, (value, value))
