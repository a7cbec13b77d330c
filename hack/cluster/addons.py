"""What runs inside the cluster: DNS, the NetworkPolicy agent, metrics-server, the storage class, the fake GPUs."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from hack.cluster import containerd, network, paths
from hack.cluster.api import Api, ApiError, Object
from hack.cluster.build import ensure_program
from hack.cluster.components import NODE_NAME
from hack.cluster.oci import write_scratch_image
from hack.ui import Failure

MANIFESTS = Path(__file__).parent / "manifests"
IMAGES = {
    "pause": containerd.PAUSE_IMAGE,
    "coredns": "localhost/s1vl-cluster-coredns:1",
    "kube-network-policies": "localhost/s1vl-cluster-kube-network-policies:1",
    "metrics-server": "localhost/s1vl-cluster-metrics-server:1",
}
GPU = "nvidia.com/gpu"
GPUS = 4
QUEUES = Path("/proc/net/netfilter/nfnetlink_queue")


@dataclass(frozen=True)
class Check:
    """Whether one thing works, and a few words about it."""

    ok: bool
    note: str


def import_images() -> None:
    """Make the images of the add-ons from the built programs and import those that containerd does not have."""
    present = containerd.images()
    for name, image in IMAGES.items():
        if image not in present:
            with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
                write_scratch_image(ensure_program(name).resolve(), image, Path(archive.name))
                containerd.import_image(Path(archive.name))


def corefile(resolvers: list[str]) -> str:
    """CoreDNS's configuration.

    Args:
        resolvers: name servers for names outside the cluster; without any such names do not exist.
    """
    upstream = [f"    forward . {' '.join(resolvers)}"] if resolvers else []
    lines = [
        ".:53 {",
        "    errors",
        "    health :8080",
        "    ready",
        "    kubernetes cluster.local in-addr.arpa ip6.arpa {",
        "        pods insecure",
        "        fallthrough in-addr.arpa ip6.arpa",
        "    }",
        *upstream,
        "    cache 30",
        "    loadbalance",
        "}",
    ]
    return "\n".join(lines) + "\n"


def manifests(resolvers: list[str]) -> str:
    """All manifests as one YAML text."""
    dns: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": corefile(resolvers)},
    }
    return "\n---\n".join([yaml.safe_dump(dns), *(file.read_text() for file in sorted(MANIFESTS.glob("*.yaml")))])


def apply(kubeconfig: Path) -> None:
    """Apply the manifests.

    Raises:
        Failure: kubectl's words.
    """
    command = [str(paths.program("kubectl")), f"--kubeconfig={kubeconfig}", "apply", "--server-side", "-f", "-"]
    text = manifests(network.upstream_resolvers())
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise Failure(f"applying the add-ons failed: {done.stderr.strip()}")


def gpu_patch() -> list[Object]:
    """The JSON patch of a node's status that gives it the fake GPUs: only the scheduler sees them."""
    path = f"/status/%s/{GPU.replace('/', '~1')}"
    return [{"op": "add", "path": path % kind, "value": str(GPUS)} for kind in ("capacity", "allocatable")]


def add_gpus(api: Api) -> None:
    """Give the node the fake GPUs."""
    api.request("PATCH", f"/api/v1/nodes/{NODE_NAME}/status", gpu_patch(), "application/json-patch+json")


def node(api: Api) -> Check:
    """Whether the node is ready."""
    try:
        status = api.request("GET", f"/api/v1/nodes/{NODE_NAME}")["status"]
    except ApiError as error:
        return Check(False, "not registered yet" if error.status == 404 else str(error))
    condition = next((each for each in status.get("conditions", []) if each["type"] == "Ready"), None)
    if condition is None or condition["status"] != "True":
        return Check(False, condition["message"] if condition else "no status yet")
    return Check(True, f"Ready, {status['capacity']['cpu']} CPUs")


def gpus(api: Api) -> Check:
    """Whether the node offers the fake GPUs."""
    try:
        found = api.request("GET", f"/api/v1/nodes/{NODE_NAME}")["status"].get("allocatable", {}).get(GPU, "0")
    except ApiError as error:
        return Check(False, str(error))
    return Check(found == str(GPUS), f"{found} {GPU} (fake)")


def _workload(api: Api, kind: str, name: str) -> Check:
    try:
        found = api.request("GET", f"/apis/apps/v1/namespaces/kube-system/{kind}/{name}")
    except ApiError as error:
        return Check(False, str(error))
    status = found["status"]
    wanted = status.get("desiredNumberScheduled", 0) if kind == "daemonsets" else found["spec"]["replicas"]
    ready = status.get("numberReady" if kind == "daemonsets" else "readyReplicas", 0)
    return Check(0 < wanted <= ready, f"{ready}/{wanted} pods ready")


def network_policies(api: Api) -> Check:
    """Whether the agent runs and listens on its queue: until it does, pods cannot connect to anything."""
    pods = _workload(api, "daemonsets", "kube-network-policies")
    queues = [line.split()[0] for line in QUEUES.read_text().splitlines()] if QUEUES.exists() else []
    if pods.ok and str(network.QUEUE) not in queues:
        return Check(False, f"nothing listens on NFQUEUE {network.QUEUE}")
    return pods


def metrics(api: Api) -> Check:
    """Whether `kubectl top nodes` has something to show."""
    try:
        found = api.request("GET", "/apis/metrics.k8s.io/v1beta1/nodes")["items"]
    except ApiError as error:
        return Check(False, "not serving yet" if error.status in (0, 404, 503) else str(error))
    return Check(bool(found), "serving" if found else "no samples yet")


def checks(api: Api) -> dict[str, Check]:
    """The state of the node and of every add-on."""
    return {
        "node": node(api),
        "gpus": gpus(api),
        "network policies": network_policies(api),
        "dns": _workload(api, "deployments", "coredns"),
        "metrics-server": metrics(api),
    }
