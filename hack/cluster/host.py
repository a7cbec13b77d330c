"""What the cluster leaves in this machine's kernel and file system beside the network: mounts, cgroups, small files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hack.cluster.components import CGROUP
from hack.ui import Failure

MOUNTINFO = Path("/proc/self/mountinfo")
SHIM_SOCKETS = Path("/run/containerd/s")
CONTAINER_LOG_LINKS = Path("/var/log/containers")


def _mounts() -> list[tuple[Path, str]]:
    """All mounts of this mount namespace: (mount point, file system type), in the order they were made."""
    found = []
    for line in MOUNTINFO.read_text().splitlines():
        fields = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), fields[4])
        found.append((Path(point), fields[fields.index("-") + 1]))
    return found


def mounts_under(*folders: Path) -> list[Path]:
    """The mount points at or below the folders, the last made first."""
    return [point for point, _ in reversed(_mounts()) if any(point.is_relative_to(folder) for folder in folders)]


def bind(source: Path, target: Path) -> None:
    """Make `target` show `source`, with mount propagation of its own. Does nothing when it is mounted already."""
    source.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    if any(point == target for point, _ in _mounts()):
        return
    # private, then shared: a peer group of its own, or every mount below would appear in both places
    for arguments in (("--bind", source, target), ("--make-private", target), ("--make-shared", target)):
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"mount {' '.join(map(str, arguments))}: {done.stderr.strip()}")


def unmount_under(*folders: Path) -> None:
    """Unmount everything at or below the folders.

    Raises:
        Failure: something is still mounted there. Nothing may be deleted below a mount: it could be a user's volume.
    """
    for _ in range(5):  # one unmount can uncover another
        points = mounts_under(*folders)
        if not points:
            return
        subprocess.run(["umount", "-l", *map(str, points)], capture_output=True, check=False)
    raise Failure(f"still mounted: {', '.join(map(str, mounts_under(*folders)))}")


def _cgroup_roots() -> list[Path]:
    """The root of every cgroup hierarchy (one with cgroup v2, about ten with v1)."""
    return list(dict.fromkeys(point for point, kind in _mounts() if kind in ("cgroup", "cgroup2")))


def create_cgroups() -> None:
    """Make the group that the kubelet puts all pods under, in every hierarchy."""
    for root in _cgroup_roots():
        controllers = root / "cgroup.controllers"
        for name in controllers.read_text().split() if controllers.exists() else ():
            with contextlib.suppress(OSError):  # not delegable here; the kubelet says so if it needs it
                (root / "cgroup.subtree_control").write_text(f"+{name}")
        group = root / CGROUP
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # with v1 a new group has none and can hold no process
            file = group / name
            if not controllers.exists() and file.exists() and not file.read_text().strip():
                file.write_text((root / name).read_text())


def _cgroups() -> Iterator[Path]:
    """All our groups in all hierarchies, children first."""
    for root in _cgroup_roots():
        for folder, _, _ in os.walk(root / CGROUP, topdown=False):
            yield Path(folder)


def pod_pids() -> set[int]:
    """The processes of all pods."""
    found: set[int] = set()
    for group in _cgroups():
        with contextlib.suppress(FileNotFoundError, OSError):  # removed meanwhile, or threaded
            found.update(int(pid) for pid in (group / "cgroup.procs").read_text().split())
    return found - {0}


def remove_cgroups() -> None:
    """Remove our groups; they must be empty."""
    for group in _cgroups():
        try:
            group.rmdir()
        except OSError as error:
            raise Failure(f"cannot remove the cgroup {group}: {error}") from error


def remove_shim_sockets(run: Path) -> None:
    """Remove the sockets of our containers' shims; killed ones leave them in a folder that all containerds share."""
    for address in run.glob("containerd/io.containerd.runtime.v2.task/*/*/address"):
        socket = Path(address.read_text().strip().removeprefix("unix://"))
        if socket.parent == SHIM_SOCKETS:
            socket.unlink(missing_ok=True)
    for folder in (SHIM_SOCKETS, SHIM_SOCKETS.parent):
        with contextlib.suppress(OSError):  # not there, or a system containerd's
            folder.rmdir()


def remove_log_links(state: Path) -> None:
    """Remove the kubelet's links to our pods' logs from the folder that every kubelet uses."""
    if not CONTAINER_LOG_LINKS.is_dir():
        return
    for link in CONTAINER_LOG_LINKS.iterdir():
        if link.is_symlink() and link.readlink().is_relative_to(state):
            link.unlink()
    with contextlib.suppress(OSError):  # others' links
        CONTAINER_LOG_LINKS.rmdir()


def remove_state(state: Path) -> None:
    """Delete a state folder but for its logs."""
    if not state.exists():
        return
    for entry in state.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            if entry.name != "log":
                shutil.rmtree(entry)
        else:
            entry.unlink()
