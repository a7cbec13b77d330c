"""Only etcd and kube-apiserver, on free loopback ports, for tests of what the API server itself does.

No controllers run: nothing is garbage-collected, namespaces stay in Terminating, Deployments make no pods. It needs no
root and does not meet the local cluster.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.api import Api
from hack.cluster.build import ensure_program
from hack.cluster.components import ControlPlane
from hack.cluster.processes import Processes, Program, stop
from hack.ports import free_ports
from hack.ui import Failure, say

ATTEMPTS = 3


@dataclass(frozen=True)
class Running:
    """A running control plane.

    Attributes:
        kubeconfig: cluster-admin, with client certificates embedded.
        server: the URL of the API server.
        state: its folder; `log/` lies in there.
    """

    kubeconfig: Path
    server: str
    state: Path


def _apiserver(plane: ControlPlane) -> Program:
    return plane.apiserver(
        # there is no controller that makes service accounts, and no Service that leads here
        disable_admission_plugins="ServiceAccount",
        endpoint_reconciler_type="none",
    )


def _start(state: Path) -> ControlPlane:
    """Start both and wait until they are ready.

    Raises:
        Failure: one of them ended or is not ready in time; names its log.
    """
    port, etcd_port, peer_port = free_ports(3)
    plane = ControlPlane(state, ensure_program, "127.0.0.1", port, etcd_port, peer_port)
    plane.create_certificates()
    kubeconfig = state / "kubeconfig"
    plane.pki.kubeconfig("admin", plane.server, kubeconfig)
    processes = Processes(state)
    for program in (plane.etcd(), _apiserver(plane)):
        processes.start(program, ends_with_us=True)
    processes.wait("kube-apiserver to be ready", "kube-apiserver", Api(kubeconfig).ready, 120)
    return plane


@contextlib.contextmanager
def control_plane() -> Iterator[Running]:
    """A fresh etcd and kube-apiserver while the context lasts; everything they wrote is gone afterwards.

    They end with this process, even when it is killed. Programs that are not built yet are built first.

    Raises:
        Failure: they did not start; names the log, which is kept.
    """
    for name in ("etcd", "kube-apiserver", "kubectl"):
        ensure_program(name)
    for attempt in range(1, ATTEMPTS + 1):
        state = Path(tempfile.mkdtemp(prefix="s1vl-control-plane-"))
        processes = Processes(state)
        try:
            plane = _start(state)
            break
        except Failure as error:
            stop(processes.recorded().values(), grace=0)
            if attempt == ATTEMPTS or not _port_taken(processes):
                raise
            say(f"trying other ports: {error.args[0]}")
            shutil.rmtree(state)
    try:
        yield Running(state / "kubeconfig", plane.server, state)
    finally:
        stop(processes.recorded().values(), grace=0)
        shutil.rmtree(state)


def _port_taken(processes: Processes) -> bool:
    """Whether somebody took a port between our look and the start."""
    logs = [processes.log(name) for name in ("etcd", "kube-apiserver")]
    return any("address already in use" in log.read_text(errors="replace") for log in logs if log.exists())
