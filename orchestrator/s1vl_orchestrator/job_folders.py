"""What is kept of the jobs' folders: one look at one tenant's, in small steps.

Whether a job still runs, here or in another instance, is seen from its folder alone. A job that made something leaves
`done` in its folder when it is over, where its code cannot write; a folder without it belongs to a job that runs, or
whose instance was killed, and counts as running until no job could. Ages are counted from a folder's last change of
status, which nobody can set. Several instances may look at once: a folder is renamed before it is removed, which
only one of them can do, and what a killed one left is removed by the next that looks.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from s1vl_orchestrator import files
from s1vl_orchestrator.config import MAX_DEADLINE_SECONDS, Retention
from s1vl_orchestrator.image_ids import JOB_ID
from s1vl_orchestrator.paths import DONE, ENGINE_COPIES, JOBS
from s1vl_orchestrator.removal import removal

log = logging.getLogger(__name__)

SURELY_OVER_SECONDS = MAX_DEADLINE_SECONDS + 600.0
"""No job runs for so long; the clocks of instances and of the volume may differ a little."""
_DOOMED = ".removed-"
_MOST_ENTRIES = 100_000
"""Entries of one job's folder that are counted."""
_MOST_FOLDERS = 100_000
"""The oldest folders that are remembered while one tenant's are counted; those beyond have the next turn."""


@dataclass
class Found:
    """What was found and done.

    Attributes:
        removed: Folders of jobs.
        removed_bytes: What they took on the volume.
        kept: Folders of jobs, those that run included.
        kept_bytes: What they take.
        failures: Folders that could not be removed or looked at.
    """

    removed: int = 0
    removed_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    failures: int = 0


@dataclass(frozen=True, order=True)
class _Job:
    oldness: float
    """Seconds since 1970 of its end, negated: the least is the newest."""
    name: str
    size: int = field(compare=False)


def keep(folder: Path, rules: Retention, now: float, found: Found) -> Generator[None, None, None]:
    """Remove what is too old, then the oldest until the rest is small enough; yields after every entry.

    Args:
        folder: The tenant's.
        rules: What is to be kept.
        now: Seconds since 1970.
        found: Is filled in.

    Raises:
        OSError: If the jobs' folder itself cannot be read.
    """
    with contextlib.suppress(FileNotFoundError), files.directory(folder, JOBS) as jobs:
        over: list[_Job] = []
        with os.scandir(jobs) as entries:
            for entry in entries:
                yield
                try:
                    yield from _look(jobs, entry, rules, now, found=found, over=over)
                except FileNotFoundError:
                    continue  # Another instance was quicker.
                except OSError as error:
                    _failed(found, folder, entry.name, error)
        over.sort()
        while rules.max_bytes_per_tenant and found.kept_bytes > rules.max_bytes_per_tenant and over:
            job = over.pop()
            try:
                yield from _remove(jobs, job, found)
            except FileNotFoundError:
                pass
            except OSError as error:
                _failed(found, folder, job.name, error)
                continue
            found.kept -= 1
            found.kept_bytes -= job.size


def keep_copies(root: Path, now: float, found: Found) -> Generator[None, None, None]:
    """Remove the engine's copies of pictures that killed instances left on the volume; yields after every entry.

    Raises:
        OSError: If their folder cannot be read.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        files.directory(root, ENGINE_COPIES) as copies,
        os.scandir(copies) as entries,
    ):
        for entry in entries:
            yield
            try:
                if now - entry.stat(follow_symlinks=False).st_ctime > SURELY_OVER_SECONDS:
                    yield from removal(copies, entry.name)
                    found.removed += 1
            except FileNotFoundError:
                continue
            except OSError as error:
                _failed(found, root, entry.name, error)


def _look(
    jobs: int, entry: os.DirEntry[str], rules: Retention, now: float, *, found: Found, over: list[_Job]
) -> Iterator[None]:
    if entry.name.startswith(_DOOMED):
        yield from removal(jobs, entry.name)
        return
    if not JOB_ID.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
        return
    changed = entry.stat(follow_symlinks=False).st_ctime
    is_over = now - changed > SURELY_OVER_SECONDS or _is_done(jobs, entry.name)
    size = yield from _measure(jobs, entry.name)
    if is_over and rules.max_age_seconds and now - changed > rules.max_age_seconds:
        yield from _remove(jobs, _Job(-changed, entry.name, size), found)
        return
    found.kept += 1
    found.kept_bytes += size
    if is_over and rules.max_bytes_per_tenant:
        heapq.heappush(over, _Job(-changed, entry.name, size))
        if len(over) > _MOST_FOLDERS:
            heapq.heappop(over)


def _is_done(jobs: int, name: str) -> bool:
    try:
        os.stat(f"{name}/{DONE}", dir_fd=jobs, follow_symlinks=False)
    except OSError:
        return False
    return True


def _measure(jobs: int, name: str) -> Generator[None, None, int]:
    """What a folder takes on the volume, in bytes.

    Not the files' sizes: code can make one of a petabyte that takes nothing, and so have all other jobs' pictures
    removed. A file with several names counts once, when all of them are here.
    """
    size = 0
    with contextlib.suppress(NotADirectoryError, PermissionError), files.directory_in(jobs, name) as folder:
        size += os.fstat(folder).st_blocks * 512
        for count, (_, info) in enumerate(files.walk(folder), 1):
            size += info.st_blocks * 512 // (1 if stat.S_ISDIR(info.st_mode) else max(1, info.st_nlink))
            yield
            if count == _MOST_ENTRIES:
                break
    return size


def _remove(jobs: int, job: _Job, found: Found) -> Iterator[None]:
    doomed = _DOOMED + job.name
    os.rename(job.name, doomed, src_dir_fd=jobs, dst_dir_fd=jobs)
    found.removed += 1
    found.removed_bytes += job.size
    yield from removal(jobs, doomed)


def _failed(found: Found, folder: Path, name: str, error: OSError) -> None:
    found.failures += 1
    if found.failures <= 3:
        log.warning("cannot look after the folder %s below %s: %s", name, folder, error)
