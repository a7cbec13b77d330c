"""The seccomp filter of kernels: which system calls are refused, and which are let through without effect.

It is a list of what is refused. What no list can foresee, new system calls, is refused in a pod by the runtime's own
filter (`seccompProfile: RuntimeDefault`), which lists what is allowed and lies below this one.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
import sys
from dataclasses import dataclass
from enum import Enum
from typing import Any

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

REFUSED: dict[str, str] = {
    "reaching other processes": (
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp "
        "pidfd_open pidfd_getfd pidfd_send_signal migrate_pages move_pages get_robust_list"
    ),
    # A kernel that cannot leave its process group dies with it, whatever it has forked.
    "leaving the process group": "setsid setpgid",
    "sockets that are not one's own": "connect",
    # /dev/shm is closed by Landlock; these are memory or mailboxes that no file rule sees.
    "shared memory and mailboxes": (
        "shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl "
        "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr memfd_create memfd_secret"
    ),
    "calls that pass other filters by": "io_uring_setup io_uring_enter io_uring_register",
    "large attack surface": (
        "bpf perf_event_open userfaultfd keyctl add_key request_key inotify_init inotify_init1 inotify_add_watch "
        "inotify_rm_watch fanotify_init fanotify_mark modify_ldt personality vhangup syslog lookup_dcookie "
        "nfsservctl uselib ustat sysfs _sysctl map_shadow_stack"
    ),
    "namespaces and mounts": (
        "unshare setns mount umount2 pivot_root chroot fsopen fsmount fsconfig fspick move_mount open_tree "
        "open_tree_attr mount_setattr statmount listmount swapon swapoff quotactl quotactl_fd"
    ),
    "programs that are no file": "execveat",
    "the machine": (
        "reboot kexec_load kexec_file_load init_module finit_module delete_module create_module query_module "
        "get_kernel_syms acct settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname "
        "iopl ioperm"
    ),
    "other identities": (
        "setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset lsm_set_self_attr"
    ),
    # Landlock does not govern these, and all kernels of a pod have the same user.
    "owners and attributes of files": (
        "chown fchown lchown fchownat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr "
        "fremovexattr removexattrat file_setattr mknod open_by_handle_at name_to_handle_at"
    ),
}
"""System calls that fail with EPERM (Python: PermissionError) and why."""

WITHOUT_EFFECT = "chmod fchmod fchmodat fchmodat2 utime utimes utimensat futimesat"
"""System calls that succeed and do nothing: modes and times of files.

Landlock does not govern them: a kernel could take the rights from other sessions' folders and from the inputs, whose
owner it is. Refusing them would break `shutil.copy`, `copytree` and `tarfile` in honest cells, which set modes and
times only in passing.
"""

NOT_IMPLEMENTED = "clone3"
"""System calls that fail with ENOSYS: libc then uses `clone`, whose flags a filter can see."""

# Of the names above, those that libseccomp 2.5.4 does not know yet. One number on all architectures since 424.
_NEW_NUMBERS = {
    "map_shadow_stack": 453,
    "fchmodat2": 452,
    "statmount": 457,
    "listmount": 458,
    "lsm_set_self_attr": 460,
    "setxattrat": 463,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_setattr": 469,
}

_INT = 0xFFFFFFFF
"""The kernel looks at the lower half of an `int` argument only, so a comparison must too."""


class Is(Enum):
    """How an argument is compared; the names are libseccomp's."""

    EQ = "equal"
    NE = "not equal"
    GT = "greater than"
    MASKED_EQ = "equal under a mask"


@dataclass(frozen=True)
class Comparison:
    """A comparison of one argument.

    Attributes:
        argument: Which argument, from 0.
        how: How it is compared with
        values: the value; under a mask, with the mask and the value.
    """

    argument: int
    how: Is
    values: tuple[int, ...]


class Condition:
    """A system call that is refused when all of its tests hold.

    Attributes:
        call: Its name.
        tests: Each of another argument.
        code: The errno it fails with.
    """

    def __init__(self, call: str, *tests: Comparison, code: int = errno.EPERM) -> None:
        self.call = call
        self.tests = tests
        self.code = code


def _eq(argument: int, value: int) -> Comparison:
    return Comparison(argument, Is.EQ, (value,))


def _ne(argument: int, value: int) -> Comparison:
    return Comparison(argument, Is.NE, (value,))


def _masked(argument: int, mask: int, value: int) -> Comparison:
    return Comparison(argument, Is.MASKED_EQ, (mask, value))


_CLONE_PARENT = 0x8000
_CLONE_NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
_AF_UNIX, _AF_NETLINK = 1, 16
_SOCK_TYPE_MASK, _S_IFMT = 0xF, 0o170000
_NOT_STREAMS = (2, 3, 4)
"""SOCK_DGRAM, SOCK_RAW (which AF_UNIX takes for the former) and SOCK_RDM. SOCK_SEQPACKET needs a connect(), too."""
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_F_SETLEASE, _F_NOTIFY = 1024, 1026
_IOCTLS = (0x5412, 0x541C, 0x40086602, 0x401C5820)
"""TIOCSTI and TIOCLINUX type into a terminal; FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR change attributes of a file."""
_PRIO_PROCESS, _IOPRIO_WHO_PROCESS, _SCHED_OTHER = 0, 1, 0

CONDITIONS: tuple[Condition, ...] = (
    # Every family but AF_UNIX, with EPERM; rules whose errors differ must not overlap.
    *(Condition("socket", _eq(0, family)) for family in range(_AF_NETLINK) if family != _AF_UNIX),
    # ZeroMQ asks netlink for interfaces before it makes a TCP socket, and aborts the process over an EPERM there.
    Condition("socket", _eq(0, _AF_NETLINK), code=errno.EOPNOTSUPP),
    Condition("socket", Comparison(0, Is.GT, (_AF_NETLINK,))),
    Condition("socketpair", _ne(0, _AF_UNIX)),
    # sendmsg() can name a receiver where no filter sees it, but not on a stream.
    *(Condition("socket", _eq(0, _AF_UNIX), _masked(1, _SOCK_TYPE_MASK, kind)) for kind in _NOT_STREAMS),
    *(Condition("socketpair", _eq(0, _AF_UNIX), _masked(1, _SOCK_TYPE_MASK, kind)) for kind in _NOT_STREAMS),
    Condition("sendto", _ne(4, 0)),
    *(Condition("clone", _masked(0, flag, flag)) for flag in _CLONE_NEW),
    # The child would be the kernel host's, beside the kernel and not below it.
    Condition("clone", _masked(0, _CLONE_PARENT, _CLONE_PARENT)),
    # What makes a kernel and its orphans end with their host.
    *(Condition("prctl", _masked(0, _INT, option)) for option in (_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER)),
    # A lease makes others wait who open the file for writing; a notification tells what they do in a folder.
    *(Condition("fcntl", _masked(1, _INT, command)) for command in (_F_SETLEASE, _F_NOTIFY)),
    *(Condition("ioctl", _masked(1, _INT, request)) for request in _IOCTLS),
    *(Condition("mknodat", _masked(2, _S_IFMT, kind)) for kind in (stat.S_IFCHR, stat.S_IFBLK)),
    # On oneself only.
    *(Condition(call, _ne(0, 0)) for call in ("prlimit64", "sched_setaffinity", "sched_setparam", "sched_setattr")),
    # ZeroMQ sets the default policy on threads of its own, by number; on another process it changes nothing.
    Condition("sched_setscheduler", _ne(1, _SCHED_OTHER)),
    Condition("setpriority", _ne(0, _PRIO_PROCESS)),
    Condition("setpriority", _ne(1, 0)),
    Condition("ioprio_set", _ne(0, _IOPRIO_WHO_PROCESS)),
    Condition("ioprio_set", _ne(1, 0)),
)
"""System calls that fail for some arguments only."""


@functools.cache
def program() -> bytes | None:
    """The filter as a BPF program for this architecture; calls of any other (i386, x32) kill the process.

    Made once and then inherited by forked processes. None where there is no libseccomp or no Linux.

    Raises:
        LookupError: If libseccomp does not know a name and neither do we.
        OSError: If libseccomp refuses a rule.
    """
    if sys.platform != "linux":
        return None
    try:
        import pyseccomp  # noqa: PLC0415  (raises where the library is missing)
    except (ImportError, RuntimeError):
        return None
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    unconditional = (
        *((names, errno.EPERM) for names in REFUSED.values()),
        (WITHOUT_EFFECT, 0),
        (NOT_IMPLEMENTED, errno.ENOSYS),
    )
    for names, code in unconditional:
        for name in names.split():
            _add(pyseccomp, rules, code, name)
    for condition in CONDITIONS:
        tests = [
            pyseccomp.Arg(test.argument, getattr(pyseccomp, test.how.name), *test.values) for test in condition.tests
        ]
        _add(pyseccomp, rules, condition.code, condition.call, *tests)
    with os.fdopen(os.memfd_create("seccomp"), "w+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _add(pyseccomp: Any, rules: Any, code: int, name: str, *arguments: Any) -> None:
    number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    if number == -1:
        number = _NEW_NUMBERS.get(name, -1)
    if number == -1:
        raise LookupError(f"no system call is named {name!r}")
    # Below -1: libseccomp's mark for calls that this architecture does not have.
    if number >= 0:
        rules.add_rule(pyseccomp.ERRNO(code), number, *arguments)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


_INSTRUCTION_BYTES = 8


def available() -> bool:
    """Whether the running kernel takes filters and we have one. Asks with a program that cannot be read."""
    if program() is None:
        return False
    try:
        _load(None)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


def restrict() -> None:
    """Put the filter on the calling thread and what it starts from now on. ``no_new_privs`` must have been set.

    Raises:
        OSError: The kernel refuses.
    """
    code = program()
    if code is None:
        raise OSError(errno.ENOSYS, "there is no libseccomp to make the filter with")
    _load(_Program(len(code) // _INSTRUCTION_BYTES, code))


def _load(filter_: _Program | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer = ctypes.byref(filter_) if filter_ is not None else None
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), pointer, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")
