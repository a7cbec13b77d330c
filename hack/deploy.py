"""Bring a cluster to the point where an S1VLDeployment can be applied: cluster, images, chart."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.build import ensure_program
from hack.cluster.target import resolve
from hack.kube import Kube, wait_for
from hack.ui import step

CHART = Path(__file__).parents[1] / "charts/s1vl"
RELEASE = "s1vl"
OPERATOR_NAMESPACE = "s1vl-system"


@dataclass(frozen=True)
class Deployed:
    """A cluster with the operator in it."""

    kube: Kube
    images: dict[str, str]


def prepare(cluster: str) -> Deployed:
    """Start or find the cluster, give it the images, install or upgrade the chart; quick when all that is done already.

    Args:
        cluster: `local`, `current` (the current kubeconfig; images come from S1VL_IMAGE_PREFIX) or `kind`.

    Raises:
        hack.ui.Failure: the cluster or an image cannot be had; the message names the log to read.
        CommandError: helm refused; the message holds its words.
    """
    target = resolve(cluster)
    target.up()
    images = target.images()
    kube = Kube(target.kubeconfig, ensure_program("kubectl"), ensure_program("helm"))
    with step(f"Installing the chart as release {RELEASE} in namespace {OPERATOR_NAMESPACE}"):
        values = {"control": "s1vl", "sandbox": "s1vl-sandbox", "engine": "s1vl-engine-sim"}
        sets = [word for key, name in values.items() for word in ("--set", f"images.{key}={images[name]}")]
        where = ("-n", OPERATOR_NAMESPACE, "--create-namespace")
        kube.helm("upgrade", "--install", RELEASE, str(CHART), *where, *sets, "--wait", "--timeout", "180s")
    return Deployed(kube, images)


def add_resource(kube: Kube, name: str, count: int) -> None:
    """Give every node an extended resource that no device stands behind, and wait until pods can be scheduled by it."""
    patch = [{"op": "add", "path": f"/status/capacity/{name.replace('/', '~1')}", "value": str(count)}]
    nodes = [node["metadata"]["name"] for node in json.loads(kube.kubectl("get", "nodes", "-o", "json"))["items"]]
    for node in nodes:
        kube.kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(patch))

        def is_there(node: str = node) -> bool:
            return name in json.loads(kube.kubectl("get", "node", node, "-o", "json"))["status"]["allocatable"]

        wait_for(f"{name} on {node}", is_there)
