"""What one cell gives, and why kernels end."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.outputs import Output, OutputCollector, OutputLimits, error_output

KERNEL_NAME = "python3"


class KernelStartError(RuntimeError):
    """A kernel did not come up; the text says why."""


class WorkingDirectoryError(ValueError):
    """The asked working directory or readable path cannot be used."""


class KillCause(StrEnum):
    """Why a kernel was ended."""

    CLOSED = "closed"
    TIMEOUT = "timeout"
    OUTPUT = "output"
    DIED = "died"
    UNHEALTHY = "unhealthy"
    SHUTDOWN = "shutdown"
    PROCESSES = "processes"
    DISK = "disk"
    HOST_LOST = "host_lost"


class CellStatus(StrEnum):
    """How a cell ended, in AIO Sandbox's words."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"


@dataclass
class CellResult:
    """What one cell gave.

    Attributes:
        status: ok, error or timeout.
        outputs: Entries of the Jupyter format, bounded by :class:`OutputLimits`.
        execution_count: The kernel's counter, if the kernel lived to tell.
        msg_id: Id of the execute request.
        state_lost: The kernel is gone and with it all variables; the next cell gets a fresh one.
        truncated: Output was left out, by the kernel or by the server.
        seconds: Wall-clock time.
    """

    status: CellStatus
    outputs: list[Output]
    execution_count: int | None
    msg_id: str
    state_lost: bool
    truncated: bool
    seconds: float


@dataclass
class RunningCell:
    """A cell that is running, or the first question to a kernel: what has been heard of it so far."""

    msg_id: str
    collector: OutputCollector
    reply: dict[str, Any] | None = None
    idle: bool = False
    greeting: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def finished(self) -> bool:
        """Both the reply and the word that the kernel is idle have come."""
        return self.reply is not None and self.idle

    @property
    def half_finished(self) -> bool:
        """One of the two has come."""
        return self.reply is not None or self.idle


@dataclass(frozen=True)
class Exit:
    """How a kernel's process ended.

    Attributes:
        code: Exit code, if it ended by itself.
        signal: Number of the signal that ended it otherwise.
        cause: Why the host ended it, if it did so by itself; ``HOST_LOST`` if the host is gone with it.
    """

    code: int | None
    signal: int | None
    cause: KillCause | None = None

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = f"signal {self.signal}"
        return f"{name}, probably out of memory" if self.signal == signal.SIGKILL else name


def execute_content(code: str, silent: bool) -> dict[str, Any]:
    """Content of an execute request: nobody is there to type, and later cells do not depend on this one's luck."""
    return {
        "code": code,
        "silent": silent,
        "store_history": not silent,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }


def death_certificate(cause: KillCause | None, end: Exit | None, limits: KernelLimits, output: OutputLimits) -> Output:
    """Why a cell has no reply, as the error that the caller sees."""
    lost = "all variables are lost"
    match cause:
        case KillCause.OUTPUT:
            mib = output.flood_bytes // 2**20
            ename, evalue = "OutputLimitExceeded", f"the cell sent over {mib} MiB of output and its kernel was killed"
        case KillCause.PROCESSES:
            ename = "ProcessLimitExceeded"
            evalue = f"the kernel had over {limits.processes} processes at once and was killed; {lost}"
        case KillCause.DISK:
            ename = "DiskLimitExceeded"
            evalue = (
                f"the session's private folder had over {limits.disk_bytes // 2**20} MiB or {limits.disk_entries} "
                f"files and the kernel was killed; {lost}"
            )
        case KillCause.HOST_LOST:
            ename = "KernelDied"
            evalue = f"all kernels died at once, probably because together they were out of memory; {lost}"
        case None | KillCause.DIED:
            ename, evalue = "KernelDied", f"the kernel died ({end or 'its end is unknown'}); {lost}"
        case _:
            ename, evalue = "SessionClosed", "the session was closed while the cell ran"
    return error_output(ename, evalue, [f"{ename}: {evalue}"], 4096)
