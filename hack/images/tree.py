"""Folders as image layers: the same folder gives the same bytes, whenever and wherever it is packed."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from hack.ui import Failure

# The time stamp of every file in every layer. Not 0: some tools take that for "unknown".
MTIME = 1_700_000_000


def digest_files(paths: Iterable[Path], relative_to: Path) -> str:
    """SHA-256 over names, modes and contents of files."""
    total = hashlib.sha256()
    for path in sorted(paths):
        executable = bool(path.stat().st_mode & 0o111)
        total.update(f"{path.relative_to(relative_to)}\0{executable:d}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def pack(folder: Path, target: Path) -> None:
    """Write `folder` as an uncompressed layer to `target`, complete or not at all.

    Device nodes and sockets are left out: container runtimes make their own.
    """

    def normalised(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
            return None
        info.mtime = MTIME
        info.uname = info.gname = ""
        return info

    part = target.with_name(f"{target.name}.part")
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        # Not recursive: tarfile lists folders in the file system's order.
        for path in sorted(folder.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(folder)), recursive=False, filter=normalised)
    part.replace(target)


def compile_python(folder: Path, base: Path, log: Path) -> None:
    """Compile all Python files below `folder`, as they will lie below `/`, with the Python of the `base` root.

    Pods have a read-only root, so nothing could be compiled later. The byte code carries no time stamps ("unchecked
    hash"): the files are what the layer says, and the layer stays the same.

    Raises:
        Failure: a file does not compile, or the mount was not allowed.
    """
    # In a mount namespace of its own: nothing is left mounted, however this ends.
    script = (
        'mount --bind "$1" "$2/mnt" && exec chroot "$2" /usr/bin/python3 -m compileall -q -j 2'
        " --invalidation-mode unchecked-hash -s /mnt -p / /mnt"
    )
    run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(folder), str(base)], log)


def run(command: list[str], log: Path) -> None:
    """Run a program with its output going to `log`.

    Raises:
        Failure: it failed; names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False).returncode
    if code != 0:
        raise Failure(f"{Path(command[0]).name} failed with exit code {code}", log)
