"""Where everything of the local cluster lives.

Three places, by how long they last: `CACHE` (slow, reusable things keyed by what they were made from; survives the
checkout), `STATE` (this checkout's cluster; gone after `down`), `RUN` (one per machine, short because the path of a
unix socket may have 107 characters at most, and a checkout may lie deep).
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

LOCAL = ROOT / ".s1vl"
"""The ignored folder that holds everything this checkout makes."""

BIN = LOCAL / "bin"
"""Links to the built programs in `CACHE`; put it on PATH to have kubectl and helm."""

STATE = LOCAL / "cluster"
"""This checkout's cluster: pki, conf, logs, etcd, containerd, kubelet, volumes, pids."""

LOGS = STATE / "log"
"""One file per process of the cluster."""

KUBECONFIG = STATE / "kubeconfig"
"""cluster-admin of the local cluster."""

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s1vl"
"""Slow, reusable things; a fresh clone on the same machine finds them."""

PROGRAMS = CACHE / "programs"
"""Built programs, one folder `<name>-<key>` each."""

GOMOD = ROOT / "hack" / "cluster" / "gomod"
"""One Go module per tool: the pins of everything that is built."""

RUN = Path("/run/s1vl-cluster")
"""Sockets and runtime state; at most one local cluster per machine, whichever checkout it belongs to."""

OWNER = RUN / "owner"
"""Holds the `STATE` folder of the checkout whose cluster is running."""

CONTAINERD_ADDRESS = RUN / "containerd.sock"
"""The cluster's own containerd; a system containerd is never touched."""

CONTAINERD_NAMESPACE = "k8s.io"
"""The containerd namespace whose images the kubelet sees."""


class ProgramMissingError(RuntimeError):
    """A program was looked up before it was built."""


def program(name: str) -> Path:
    """The built program `name` (kubectl, helm, kube-apiserver, ...).

    Raises:
        ProgramMissingError: it has not been built in this checkout yet (`hack.cluster.build.ensure` does).
    """
    path = BIN / name
    if not path.exists():
        raise ProgramMissingError(f"{path} does not exist yet; `make cluster-up` builds it")
    return path
