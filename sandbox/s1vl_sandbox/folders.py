"""Measuring folders that hostile code fills. Never follows a link."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass
class Usage:
    """What a folder takes: bytes on disk (not lengths, which sparse files can claim for nothing) and entries."""

    disk_bytes: int = 0
    entries: int = 0


def measure(folder: Path, step: int) -> Iterator[Usage]:
    """Measure a folder a bit at a time.

    Args:
        folder: May change or vanish meanwhile.
        step: Entries after which the usage found so far is given; given a last time at the end.
    """
    usage = Usage()
    queue = [str(folder)]
    while queue:
        try:
            with os.scandir(queue.pop()) as entries:
                for entry in entries:
                    # An entry that has gone since takes nothing.
                    with contextlib.suppress(FileNotFoundError):
                        usage.disk_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
                        usage.entries += 1
                        if entry.is_dir(follow_symlinks=False):
                            queue.append(entry.path)
                    if usage.entries % step == 0:
                        yield replace(usage)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                # Nobody makes folders that deep but to hide something.
                usage.entries = sys.maxsize
    yield replace(usage)
