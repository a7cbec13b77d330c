"""Starts, finds and stops the processes of a cluster.

A process is ours when its pid *and* its start time are the recorded ones (pids are used again by the kernel), or when
it is one of the programs we start and its command line names our own folders. Nothing else is ever signalled.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hack.ui import Failure

OPEN_FILES = 1_048_576
PROC = Path("/proc")
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True)
class Program:
    """One process of the cluster.

    Attributes:
        name: names its log and its record.
        command: the command line.
        folder: the folder to start it in.
    """

    name: str
    command: tuple[str, ...]
    folder: Path = Path("/")


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the program's name stands in parentheses and may hold spaces and parentheses itself
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def raise_open_files() -> None:
    """Raise this process's limit of open files; what it starts inherits that.

    Not beyond about a million: programs in pods that loop over all possible descriptors would take minutes.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


@dataclass(frozen=True)
class Processes:
    """The recorded processes of one state folder: `pids/<name>.json` and `log/<name>.log`."""

    state: Path

    def log(self, name: str) -> Path:
        """The file that `name` writes to."""
        return self.state / "log" / f"{name}.log"

    def _record(self, name: str) -> Path:
        return self.state / "pids" / f"{name}.json"

    def pid(self, name: str) -> int | None:
        """The pid of `name` when it runs, else None."""
        try:
            record = json.loads(self._record(name).read_text())
            pid, started = int(record["pid"]), int(record["started"])
        except (FileNotFoundError, ValueError, KeyError):
            return None  # never started, or the run was killed while it wrote this
        return pid if start_time(pid) == started else None

    def recorded(self) -> dict[str, int]:
        """The recorded processes that run: name -> pid."""
        names = sorted(file.stem for file in (self.state / "pids").glob("*.json"))
        return {name: pid for name in names if (pid := self.pid(name)) is not None}

    def start(self, program: Program, *, ends_with_us: bool = False) -> None:
        """Start a program in a session of its own and record it.

        Args:
            program: what to start.
            ends_with_us: the kernel kills it when the thread that called this ends, however it ends.

        Raises:
            Failure: it cannot be executed.
        """
        log = self.log(program.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        record = self._record(program.name)
        record.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            try:
                process = subprocess.Popen(
                    (*(WITH_PARENT if ends_with_us else ()), *program.command),
                    cwd=program.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise Failure(f"cannot start {program.name} ({program.command[0]}): {error}") from error
        record.write_text(json.dumps({"pid": process.pid, "started": start_time(process.pid) or 0}))
        # it outlives this process on purpose; keep Popen from complaining about that
        process.returncode = 0

    def wait(self, what: str, name: str, ready: Callable[[], bool], timeout: float) -> None:
        """Wait until `ready`; give up at once when the process `name` ends.

        Raises:
            Failure: it ended or `timeout` seconds passed; names the log.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if self.pid(name) is None:
                raise Failure(f"{name} ended while waiting for {what}", self.log(name))
            if time.monotonic() > deadline:
                raise Failure(f"waited {timeout:.0f} s for {what}", self.log(name))
            time.sleep(0.1)


def command_lines() -> dict[int, list[str]]:
    """The command lines of all processes."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            try:
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
    return found


def is_ours(command: list[str], programs: Iterable[str], folders: Iterable[Path]) -> bool:
    """Whether a command line is one of our `programs` (or `python -m` one of them) working in one of our `folders`."""
    named = {Path(command[0]).name, *(command[2:3] if command[1:2] == ["-m"] else ())} if command else set()
    if named.isdisjoint(programs):
        return False
    return any(f"{folder}/" in argument for argument in command[1:] for folder in folders)


def stop(pids: Iterable[int], grace: float) -> None:
    """SIGTERM, `grace` seconds, then SIGKILL; returns when all are gone.

    Raises:
        Failure: one survives SIGKILL for 30 s (it hangs in the kernel).
    """
    left = {pid: started for pid in pids if (started := start_time(pid)) is not None}
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 30.0)):
        if number == signal.SIGTERM and grace <= 0:
            continue
        for pid in left:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            for pid in left:
                _reap(pid)
            left = {pid: started for pid, started in left.items() if start_time(pid) == started}
            if left:
                time.sleep(0.02)
        if not left:
            return
    raise Failure(f"processes {sorted(left)} survive SIGKILL")


def _reap(pid: int) -> None:
    """Collect a child that ended; does nothing for a process that somebody else started."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
