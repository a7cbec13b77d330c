"""Starts the cluster: from nothing, from what a killed run left, or not at all when it runs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from hack.cluster import addons, containerd, host, network, paths
from hack.cluster.api import Api
from hack.cluster.build import ensure_all
from hack.cluster.components import KUBELET_PORT, ControlPlane, Node
from hack.cluster.down import owner, take_down
from hack.cluster.processes import Processes, raise_open_files
from hack.ui import Failure, duration, say, step

API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
LOCK = Path("/run/lock/s1vl-cluster.lock")
HOST_PROGRAMS = ("containerd", "ctr", "runc", "iptables", "ip", "conntrack", "openssl", "mount")
CNI_PLUGINS = Path("/usr/lib/cni")
PORTS = {
    "etcd": [("127.0.0.1", ETCD_PORT), ("127.0.0.1", ETCD_PEER_PORT)],
    "kube-apiserver": [("0.0.0.0", API_PORT)],
    "kube-controller-manager": [("127.0.0.1", 10257)],
    "kube-scheduler": [("127.0.0.1", 10259)],
    "kubelet": [("0.0.0.0", KUBELET_PORT), ("127.0.0.1", 10248)],
    "kube-proxy": [("127.0.0.1", 10249), ("127.0.0.1", 10256)],
}


def this_node() -> Node:
    """The node of this checkout."""
    return Node(ControlPlane(paths.STATE, paths.program, "0.0.0.0", API_PORT, ETCD_PORT, ETCD_PEER_PORT), paths.RUN)


@contextlib.contextmanager
def machine_lock() -> Iterator[None]:
    """One `up` or `down` at a time on this machine.

    Raises:
        Failure: not root.
    """
    if os.geteuid() != 0:
        raise Failure("the local cluster needs root: it makes network devices, mounts and cgroups")
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with step("wait for another cluster command to finish"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def up() -> None:
    """Make sure that the cluster runs.

    Raises:
        Failure: it could not be started; names the log to read.
    """
    started = time.monotonic()
    with machine_lock():
        running = Processes(paths.STATE).recorded() if owner() == paths.STATE else {}
        if running and is_healthy():
            say(f"The cluster is running already. KUBECONFIG={paths.KUBECONFIG}")
            return
        _check_machine()
        ensure_all()
        raise_open_files()
        node = this_node()
        if running:
            say("The cluster is not whole: starting what is missing. (make cluster-down cluster-up makes a new one.)")
        else:
            if (old := owner()) is not None or paths.RUN.exists():
                say(f"Removing what an earlier cluster left ({old or paths.RUN})")
            take_down()
            _check_ports()
            _prepare(node)
        _start(node)
    say(f"The cluster is up after {duration(time.monotonic() - started)}. KUBECONFIG={paths.KUBECONFIG}")


def is_healthy() -> bool:
    """Whether every process runs and every add-on works."""
    wanted = {program.name for program in this_node().programs()}
    if not wanted <= set(Processes(paths.STATE).recorded()):
        return False
    api = Api(paths.KUBECONFIG)
    return api.ready() and all(check.ok for check in addons.checks(api).values())


def _check_machine() -> None:
    missing = [name for name in HOST_PROGRAMS if shutil.which(name) is None]
    missing += [
        str(CNI_PLUGINS / name) for name in ("bridge", "portmap", "host-local") if not (CNI_PLUGINS / name).exists()
    ]
    if missing:
        raise Failure(f"missing on this machine: {', '.join(missing)}; run hack/bootstrap.sh --cluster")


def _check_ports() -> None:
    for name, addresses in PORTS.items():
        for address, port in addresses:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                    raise Failure(
                        f"port {port}, which {name} needs, is in use (`ss -ltnp 'sport = :{port}'` says by what); "
                        "is another Kubernetes running on this machine?"
                    ) from error


def _prepare(node: Node) -> None:
    """Everything but processes, for a cluster from nothing."""
    shutil.rmtree(paths.LOGS, ignore_errors=True)
    paths.RUN.mkdir(mode=0o711, parents=True)
    paths.OWNER.write_text(f"{paths.STATE}\n")
    for name in ("pod-logs", "volume-plugins", "volumes", "log", "pids"):
        (paths.STATE / name).mkdir(parents=True, exist_ok=True)
    with step("certificates and configuration"):
        node.create_certificates()
        for file, content in node.files(network.upstream_resolvers()).items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)


def _start(node: Node) -> None:
    """Start what does not run, and wait until all of it works. Repeating it changes nothing that is there."""
    processes = Processes(paths.STATE)
    programs = {program.name: program for program in node.programs()}
    api = Api(paths.KUBECONFIG)

    def start(*names: str) -> None:
        for name in names:
            if processes.pid(name) is None:
                processes.start(programs[name])

    with step("bridge, firewall rules, mounts, cgroups"):
        network.create()
        host.create_cgroups()
        host.bind(paths.STATE / "kubelet", node.kubelet_root)
    with step("etcd, kube-apiserver, containerd"):
        start("etcd", "containerd", "kube-apiserver")
        processes.wait("containerd to answer", "containerd", containerd.answers, 60)
        addons.import_images()
        processes.wait("kube-apiserver to be ready", "kube-apiserver", api.ready, 120)
    with step("kubelet, kube-proxy, controllers, scheduler"):
        start(*programs)
        addons.apply(paths.KUBECONFIG)
        processes.wait("the node to be Ready", "kubelet", lambda: addons.node(api).ok, 120)
        addons.add_gpus(api)
    with step("DNS, network policies, metrics, GPUs"):
        _wait_for_addons(api, processes, set(programs))


def _wait_for_addons(api: Api, processes: Processes, names: set[str], timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while bad := {name: check for name, check in addons.checks(api).items() if not check.ok}:
        if dead := sorted(names - set(processes.recorded())):
            raise Failure(f"{dead[0]} ended", processes.log(dead[0]))
        if time.monotonic() > deadline:
            said = "; ".join(f"{name}: {check.note}" for name, check in bad.items())
            raise Failure(
                f"after {timeout:.0f} s still not working: {said} (pods' logs: {paths.STATE}/pod-logs)",
                processes.log("kubelet"),
            )
        time.sleep(0.2)
