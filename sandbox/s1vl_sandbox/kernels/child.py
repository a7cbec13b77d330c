"""The life of a forked child: it prepares, waits for what it is granted, confines itself and becomes a kernel."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
import socket
import traceback
from pathlib import Path
from typing import NoReturn

import numpy as np

from s1vl_sandbox.containment import Grants, confine
from s1vl_sandbox.kernels.environment import kernel_environment
from s1vl_sandbox.kernels.ipython import KernelApp
from s1vl_sandbox.limits import KernelLimits
from s1vl_sandbox.processes import become_subreaper, die_with_parent, offer_to_oom_killer
from s1vl_sandbox.protocol import Lines, Message, encode

KEY_FILE = "key"

# Kernels yield to their host, which must be able to end them: a bomb's thousands of processes share what it leaves.
_NICE = 19
# When the container's memory is full, a kernel has to die and not the host of all.
_OOM_SCORE_ADJ = 1000


class WorkingDirectoryUnusableError(Exception):
    """The kernel may not enter or not read its working directory."""


def live(channel: socket.socket, folder: Path, limits: KernelLimits, host: int) -> NoReturn:
    """Be a kernel from the fork to the end of the process.

    Args:
        channel: To the host: "waiting", then one "start" comes, then "ready" or "failed" goes and it is closed.
        folder: The kernel's own folder.
        limits: rlimits to put on itself.
        host: Process id of the host, with which this process dies.
    """
    try:
        detach(folder, limits, host)
        app = KernelApp.prepare(folder)
        channel.sendall(encode("waiting"))
        order = _receive(channel)
        if order is None:
            os._exit(0)
        confine(Grants(tuple(map(Path, order["read"])), (folder, *map(Path, order["write"]))))
        _enter(order["cwd"] or str(folder / "work"))
        key = secrets.token_hex(32).encode()
        app.listen(key)
        _leave_key(folder / KEY_FILE, key)
        channel.sendall(encode("ready"))
        channel.close()
    except BaseException as error:
        kind = "cwd" if isinstance(error, WorkingDirectoryUnusableError) else "start"
        why = str(error) if kind == "cwd" else "".join(traceback.format_exception(error))[-2000:]
        _tell(channel, encode("failed", kind=kind, why=why))
        os._exit(1)
    try:
        app.start()
    finally:
        os._exit(0)


def detach(folder: Path, limits: KernelLimits, host: int) -> None:
    """Become a process of its own: session, signals, standard streams, limits, random numbers, environment."""
    os.setsid()
    die_with_parent(host)
    become_subreaper()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    logging.getLogger().handlers.clear()
    # The host does this when it has imported everything.
    gc.enable()
    limits.apply()
    os.umask(0o007)
    os.nice(_NICE)
    offer_to_oom_killer(_OOM_SCORE_ADJ)
    # Forks share the state of the global generator and would all draw the same numbers.
    np.random.seed()
    environment = kernel_environment(folder, os.environ)
    os.environ.clear()
    os.environ.update(environment)


def _receive(channel: socket.socket) -> Message | None:
    lines = Lines()
    while data := channel.recv(65536):
        for message in lines.feed(data):
            return message
    return None


def _enter(directory: str) -> None:
    try:
        # Landlock does not govern chdir: without this a cell would learn only later that it sees nothing there.
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        os.chdir(directory)
    except OSError as error:
        raise WorkingDirectoryUnusableError(f"the kernel may not use it: {error.strerror}") from error


def _leave_key(path: Path, key: bytes) -> None:
    """Leave the key for the server, which reads and removes it. Made after the fork, it is in no other's memory."""
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        os.write(descriptor, key)
    finally:
        os.close(descriptor)
    part.rename(path)


def _tell(channel: socket.socket, message: bytes) -> None:
    try:
        channel.sendall(message)
    except OSError:
        # The host is gone, and so are we in a moment.
        os._exit(1)
