"""Takes a cluster down, whatever state it is in, and leaves nothing. Safe to repeat, and after `kill -9`."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from hack.cluster import host, network, paths
from hack.cluster.build import SOURCES
from hack.cluster.components import PROVISIONER_MODULE
from hack.cluster.processes import Processes, command_lines, is_ours, stop
from hack.ui import Failure, step

PROGRAMS = {*SOURCES, "containerd", "containerd-shim-runc-v2", PROVISIONER_MODULE}
SHIM = "containerd-shim-runc-v2"


def owner() -> Path | None:
    """The state folder of the cluster on this machine, whichever checkout it belongs to; None when there is none."""
    try:
        return Path(paths.OWNER.read_text().strip())
    except FileNotFoundError:
        return None


def _our_pids(states: set[Path]) -> tuple[set[int], set[int]]:
    """The cluster's processes outside of pods: (all but the shims, the shims)."""
    daemons = {pid for state in states for pid in Processes(state).recorded().values()}
    shims: set[int] = set()
    for pid, command in command_lines().items():
        if is_ours(command, PROGRAMS, {*states, paths.RUN}) or str(paths.CONTAINERD_ADDRESS) in command[1:]:
            (shims if Path(command[0]).name == SHIM else daemons).add(pid)
    return daemons, shims


def _stop_all(states: set[Path]) -> int:
    """Kill everything: first what would start things anew, then shims, then what the pods left. Returns how many."""
    daemons, shims = _our_pids(states)
    stop(daemons, grace=0)
    _, shims = _our_pids(states)
    stop(shims, grace=0)
    count = len(daemons) + len(shims)
    deadline = time.monotonic() + 30
    while pods := host.pod_pids():
        count += len(pods)
        stop(pods, grace=0)
        if time.monotonic() > deadline:
            raise Failure(f"processes {sorted(pods)} of pods survive SIGKILL")
        time.sleep(0.02)
    return count


def take_down() -> bool:
    """Take down the cluster of this machine and whatever this checkout left; returns whether there was anything.

    Everything in it is gone afterwards, volumes included; the logs stay until the next start.

    Raises:
        Failure: something could not be removed; says what.
    """
    recorded = owner()
    states = {paths.STATE} | ({recorded} if recorded else set())
    daemons, shims = _our_pids(states)
    left = [entry for state in states if state.exists() for entry in state.iterdir() if entry.name != "log"]
    if not (paths.RUN.exists() or daemons or shims or left):
        return False
    with step("stop the cluster's processes and pods") as shown:
        shown.note = f"{_stop_all(states)} processes"
    with step("remove its mounts, network, cgroups and state"):
        host.unmount_under(paths.RUN, *states)
        if paths.RUN.exists():  # else this kernel has nothing of ours, and KUBE-* rules would be somebody else's
            host.remove_shim_sockets(paths.RUN)
            network.remove()
        host.remove_cgroups()
        for state in states:
            host.remove_log_links(state)
            host.remove_state(state)
            if state != paths.STATE:
                with contextlib.suppress(OSError):  # its logs are still there
                    state.rmdir()
        if paths.RUN.exists():
            shutil.rmtree(paths.RUN)
    return True
