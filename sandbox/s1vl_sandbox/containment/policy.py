"""What a kernel may touch: the fixed base every kernel needs, and the grants of its session. Knows no system call."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path

# The first Landlock ABI that governs each thing: docs.kernel.org/userspace-api/landlock.html, "Previous limitations".
_ABI_TRUNCATE = 3
_ABI_TCP = 4
_ABI_SIGNALS = 6


class Protection(StrEnum):
    """What a node's kernel can hold for us; the names are what `/v1/sandbox` and the metric show.

    Attributes:
        FILES: A kernel reads and changes the contents of its grants only.
        TCP: No TCP connection and no TCP port.
        SIGNALS: Signals reach only what the kernel itself started.
        SYSCALLS: The filter of :mod:`.syscalls` holds.
        SEPARATE_SERVER: Kernels run under another user and in other namespaces than the server.
    """

    FILES = "files"
    TCP = "tcp"
    SIGNALS = "signals"
    SYSCALLS = "syscalls"
    SEPARATE_SERVER = "separate_server"


@dataclass(frozen=True)
class Grants:
    """What one session may touch beyond the fixed base.

    All paths are absolute, exist, and have no symbolic link in them: a link may have been laid by an earlier kernel.

    Attributes:
        read: Files or folders that may be read, with all that is below.
        write: Folders below which everything may be read, written, made and removed (not executed).
    """

    read: tuple[Path, ...]
    write: tuple[Path, ...]


@dataclass(frozen=True)
class Isolation:
    """Which protections hold on this node.

    Attributes:
        landlock_abi: Version of the running kernel's Landlock; 0 is none.
        held: The protections that a call of ``confine`` puts in place here.
    """

    landlock_abi: int
    held: frozenset[Protection]

    def missing(self, separate: bool) -> frozenset[Protection]:
        """The protections that do not hold; ``separate`` says whether the kernels have a container of their own."""
        return frozenset(Protection) - self.held - ({Protection.SEPARATE_SERVER} if separate else set())


def isolation(landlock_abi: int, syscall_filter: bool) -> Isolation:
    """Judge what a Landlock of that ABI (0: none), with or without a seccomp filter, comes to."""
    held = {
        Protection.FILES: landlock_abi >= _ABI_TRUNCATE,
        # The filter refuses every socket that is not AF_UNIX, so either of the two is enough.
        Protection.TCP: landlock_abi >= _ABI_TCP or syscall_filter,
        Protection.SIGNALS: landlock_abi >= _ABI_SIGNALS,
        Protection.SYSCALLS: syscall_filter,
    }
    return Isolation(landlock_abi, frozenset(protection for protection, holds in held.items() if holds))


class Access(Enum):
    """What may be done below a path."""

    READ = "read"
    LIBRARY = "read and execute"
    DEVICE = "read and write, no ioctl"
    WRITE = "read, write, make, remove"


@dataclass(frozen=True)
class Rule:
    """One opening.

    Attributes:
        path: A file or a folder with all below it.
        access: What may be done there.
        granted: It comes from the session's grants: it must exist and no symbolic link is followed.
    """

    path: Path
    access: Access
    granted: bool = False


_LIBRARIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Not /etc as a whole: shadow may be readable to us on a laptop, and hosts and resolv.conf tell of the network.
_CONFIGURATION = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/fonts"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/mime.types"),
)
# How many cores there are, for thread pools. Nothing of /proc: a Landlock rule sticks to an inode, and procfs makes a
# new one whenever it has forgotten the old, so a rule there lasts until the node is short of memory.
_MACHINE = ("/sys/devices/system/cpu",)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def rules(grants: Grants, libraries: Iterable[Path]) -> list[Rule]:
    """The fixed base with ``libraries`` (where Python and its packages lie), and the openings of ``grants``.

    Raises:
        ValueError: If a grant is not an absolute path, has `..` in it or is the root folder.
    """
    for path in (*grants.read, *grants.write):
        if not path.is_absolute() or ".." in path.parts or path == Path("/"):
            raise ValueError(f"grant {str(path)!r} is not an absolute, resolved path below /")
    base = {
        Access.LIBRARY: (*map(Path, _LIBRARIES), *libraries),
        Access.READ: map(Path, (*_CONFIGURATION, *_MACHINE)),
        Access.DEVICE: map(Path, _DEVICES),
    }
    return [
        *(Rule(path, access) for access, paths in base.items() for path in dict.fromkeys(paths)),
        *(Rule(path, Access.READ, granted=True) for path in grants.read),
        *(Rule(path, Access.WRITE, granted=True) for path in grants.write),
    ]
