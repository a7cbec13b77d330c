"""The cluster's own containerd: its configuration, and images imported into it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hack.cluster import paths
from hack.ui import Failure

PAUSE_IMAGE = "localhost/s1vl-cluster-pause:1"


def config(state: Path, run: Path) -> str:
    """The configuration file: every folder and socket of its own, so that a system containerd is not touched.

    `restrict_oom_score_adj` lets pods start where root may not lower an OOM score (no CAP_SYS_RESOURCE).
    """
    return f"""version = 2
root = "{state}/containerd"
state = "{run}/containerd"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/conf/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{run}/runc"
      SystemdCgroup = false
"""


def ctr(*args: str, timeout: float = 600) -> str:
    """Run `ctr` on the cluster's containerd, in the kubelet's namespace, and return what it printed.

    Raises:
        Failure: it ended with another status than 0, or the cluster is not running.
    """
    if not paths.CONTAINERD_ADDRESS.exists():
        raise Failure("the local cluster's containerd is not running; `make cluster-up` starts it")
    command = ["ctr", "-a", str(paths.CONTAINERD_ADDRESS), "-n", paths.CONTAINERD_NAMESPACE, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def answers() -> bool:
    """Whether containerd runs and answers; its socket's file may be left from a killed one."""
    try:
        ctr("version")
    except Failure:
        return False
    return True


def images() -> set[str]:
    """The names of the images that the cluster has."""
    return set(ctr("images", "list", "-q").split())


def import_image(archive: Path) -> None:
    """Import a docker-archive or OCI archive; pods use the names written in it.

    Raises:
        Failure: the cluster is not running, or containerd refused the archive.
    """
    ctr("images", "import", str(archive))
