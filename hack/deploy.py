"""Bring a cluster to the point where an S1VLDeployment can be applied: cluster, images, chart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hack.cluster.build import ensure_program
from hack.cluster.target import resolve
from hack.kube import Kube
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
