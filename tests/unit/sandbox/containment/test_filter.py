"""The filter of system calls as a program."""

from __future__ import annotations

import struct
from collections import Counter

import pytest

from s1vl_sandbox.containment import syscalls

BPF_RETURN = 0x06
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000

NAMES = [
    *(name for names in syscalls.REFUSED.values() for name in names.split()),
    *syscalls.WITHOUT_EFFECT.split(),
    *syscalls.NOT_IMPLEMENTED.split(),
]


@pytest.fixture(scope="module")
def program() -> bytes:
    code = syscalls.program()
    if code is None:
        pytest.skip("there is no libseccomp")
    return code


def _results(program: bytes) -> set[int]:
    instructions = struct.iter_unpack("<HBBI", program)
    return {value for code, _, _, value in instructions if code == BPF_RETURN}


def test_its_ends_are_the_documented_ones(program: bytes) -> None:
    errors = {ERRNO | code for code in (0, 1, 38, 95)}  # no effect, EPERM, ENOSYS, EOPNOTSUPP
    assert _results(program) == errors | {ALLOW, KILL_PROCESS}


def test_it_fits_the_kernels_limit(program: bytes) -> None:
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096


def test_no_call_has_two_rules_that_contradict() -> None:
    conditional = {condition.call for condition in syscalls.CONDITIONS}
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []
    assert conditional.isdisjoint(NAMES)


@pytest.mark.parametrize("condition", syscalls.CONDITIONS, ids=lambda c: c.call)
def test_int_arguments_are_not_compared_under_equality_alone(condition: syscalls.Condition) -> None:
    """A rule that only refuses a value must look at the lower half, or be covered by one that refuses what is above."""
    if condition.call in ("fcntl", "ioctl", "prctl"):
        assert [c.how for c in condition.tests] == [syscalls.Is.MASKED_EQ]


def test_what_kernels_live_on_is_not_refused() -> None:
    needed = (
        "read write openat close mmap mprotect futex epoll_wait eventfd2 bind listen accept4 sendmsg recvmsg execve "
        "wait4 kill tgkill pipe2 dup2 fsync rename linkat symlinkat unlinkat getrandom sendfile copy_file_range"
    )
    assert set(needed.split()).isdisjoint(NAMES)
