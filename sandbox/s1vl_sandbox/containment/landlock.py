"""Landlock by its three system calls: what a process may do with files, TCP, abstract sockets and signals.

Numbers and structures are those of `include/uapi/linux/landlock.h`; an older kernel gets the part that it knows.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from enum import IntFlag
from pathlib import Path

from s1vl_sandbox.containment.policy import Access, Rule

# The same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
# ABI 7 writes every refusal into the node's audit log unless told not to; hostile code would fill that.
_RESTRICT_SELF_LOG_SAME_EXEC_OFF = 1
_ABI_LOG_FLAGS = 7


class Right(IntFlag):
    """LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


_FIRST_ABI = (
    (Right.REFER, 2),
    (Right.TRUNCATE, 3),
    (Right.IOCTL_DEV, 5),
)
_TCP_BIND_AND_CONNECT, _TCP_ABI = 0b11, 4
_SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL, _SCOPE_ABI = 0b11, 6

# Of these alone may a rule on something that is not a folder speak.
_FILE_RIGHTS = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV

_READ = Right.READ_FILE | Right.READ_DIR
_RIGHTS = {
    Access.READ: _READ,
    Access.LIBRARY: _READ | Right.EXECUTE,
    Access.DEVICE: Right.READ_FILE | Right.WRITE_FILE,
    Access.WRITE: _READ
    | (Right.WRITE_FILE | Right.TRUNCATE | Right.REFER)
    | (Right.REMOVE_DIR | Right.REMOVE_FILE)
    | (Right.MAKE_DIR | Right.MAKE_REG | Right.MAKE_SOCK | Right.MAKE_FIFO | Right.MAKE_SYM),
}


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def handled_rights(abi: int) -> Right:
    """All file rights that a Landlock of that ABI knows: those that no rule grants are refused."""
    unknown = Right(0)
    for right, first in _FIRST_ABI:
        if abi < first:
            unknown |= right
    return ~unknown


def rights_of(access: Access, abi: int, is_folder: bool) -> Right:
    """The rights of a rule, as far as the ABI and the kind of file know them."""
    rights = _RIGHTS[access] & handled_rights(abi)
    return rights if is_folder else rights & _FILE_RIGHTS


def abi() -> int:
    """The running kernel's Landlock ABI; 0 where there is none, it is switched off, or a filter hides it."""
    if sys.platform != "linux":
        return 0
    try:
        return _call(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
            return 0
        raise


def restrict(rules: Iterable[Rule], abi: int) -> None:
    """Confine the calling thread, and what it starts from now on, to ``rules``. There is no way back.

    Rules of the base whose path does not exist are left out.

    Args:
        rules: Everything that stays open.
        abi: The kernel's ABI, at least 1. ``no_new_privs`` must have been set.

    Raises:
        OSError: A granted path is missing or has a symbolic link in it, or the kernel refuses.
    """
    attributes = _RulesetAttr(
        handled_access_fs=handled_rights(abi),
        handled_access_net=_TCP_BIND_AND_CONNECT if abi >= _TCP_ABI else 0,
        scoped=_SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL if abi >= _SCOPE_ABI else 0,
    )
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.sizeof(attributes), 0)
    try:
        for rule in rules:
            _add(ruleset, rule, abi)
        _call(_RESTRICT_SELF, ruleset, _RESTRICT_SELF_LOG_SAME_EXEC_OFF if abi >= _ABI_LOG_FLAGS else 0)
    finally:
        os.close(ruleset)


def _add(ruleset: int, rule: Rule, abi: int) -> None:
    try:
        with _opened(rule.path, follow=not rule.granted) as fd:
            rights = rights_of(rule.access, abi, stat.S_ISDIR(os.fstat(fd).st_mode))
            attributes = _PathBeneathAttr(allowed_access=rights, parent_fd=fd)
            _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(attributes), 0)
    except (FileNotFoundError, NotADirectoryError):
        if rule.granted:
            raise


@contextlib.contextmanager
def _opened(path: Path, *, follow: bool) -> Iterator[int]:
    """A descriptor that only names ``path``; without ``follow``, no part of it may be a symbolic link."""
    if follow:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    else:
        fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
        for part in path.parts[1:]:
            parent = fd
            try:
                fd = os.open(part, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent)
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from None
            finally:
                os.close(parent)
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                os.close(fd)
                raise OSError(errno.ELOOP, f"{part!r} is a symbolic link", str(path))
    try:
        yield fd
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: system call {number}: {os.strerror(code)}")
    return result
