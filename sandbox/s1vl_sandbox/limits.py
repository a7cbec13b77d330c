"""Resource limits that a kernel process puts on itself before any user code runs.

Every kernel imports this module: it must stay light.
"""

from __future__ import annotations

import resource
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class KernelLimits:
    """rlimits of one kernel process and, each for itself, of the processes it starts; 0 means not set.

    Attributes:
        memory_bytes: Address space (RLIMIT_AS). Without it, one huge allocation makes the node kill the whole pod.
        file_bytes: Largest file (RLIMIT_FSIZE).
        open_files: File descriptors (RLIMIT_NOFILE).
        processes: Processes of this user id (RLIMIT_NPROC).
    """

    memory_bytes: int
    file_bytes: int
    open_files: int
    processes: int

    def apply(self) -> None:
        """Set the limits, soft and hard, on the calling process. They can never be raised again by it.

        Raises:
            OSError: If a limit is above the hard limit that already holds.
        """
        _set(resource.RLIMIT_CORE, 0, always=True)
        _set(resource.RLIMIT_AS, self.memory_bytes)
        _set(resource.RLIMIT_FSIZE, self.file_bytes)
        _set(resource.RLIMIT_NOFILE, self.open_files)
        _set(resource.RLIMIT_NPROC, self.processes)

    def describe(self) -> dict[str, int | None]:
        """The limits that hold, for people; ``None`` where there is none."""
        return {name: value or None for name, value in asdict(self).items()}


def _set(which: int, value: int, *, always: bool = False) -> None:
    if value or always:
        resource.setrlimit(which, (value, value))
