"""What a caller learns of a kernel's death."""

from __future__ import annotations

import pytest

from s1vl_sandbox.cells import Exit, KillCause, death_certificate
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.outputs import OutputLimits


@pytest.mark.parametrize(
    ("cause", "end", "ename", "says"),
    [
        (KillCause.OUTPUT, None, "OutputLimitExceeded", "over 64 MiB of output"),
        (KillCause.PROCESSES, Exit(None, 9), "ProcessLimitExceeded", "over 64 processes"),
        (KillCause.DISK, Exit(None, 9), "DiskLimitExceeded", "over 512 MiB or 20000 files"),
        (KillCause.HOST_LOST, Exit(None, None), "KernelDied", "all kernels died at once"),
        (KillCause.DIED, Exit(7, None), "KernelDied", "exit code 7"),
        (KillCause.DIED, Exit(None, 11), "KernelDied", "SIGSEGV"),
        (KillCause.DIED, Exit(None, 9), "KernelDied", "SIGKILL, probably out of memory"),
        (KillCause.DIED, Exit(None, 60), "KernelDied", "signal 60"),
        (KillCause.CLOSED, None, "SessionClosed", "was closed"),
        (KillCause.SHUTDOWN, None, "SessionClosed", "was closed"),
    ],
)
def test_death_certificates(cause: KillCause, end: Exit | None, ename: str, says: str) -> None:
    output = death_certificate(cause, end, KernelLimits(0, 0, 0, 0), OutputLimits())
    assert output["ename"] == ename
    assert says in output["evalue"]
