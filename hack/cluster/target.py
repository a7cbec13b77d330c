"""The cluster that the demo and the e2e tests run on: CLUSTER=local, current or kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hack.cluster import addons, containerd, paths
from hack.cluster.build import ensure_program
from hack.cluster.up import up as local_up
from hack.images import build as builder
from hack.images.load import load_into_cluster
from hack.ui import Failure, step

KIND_CONFIG = Path(__file__).with_name("kind.yaml")
KIND_NAME = "s1vl"


class Target(Protocol):
    """A cluster to deploy to.

    Attributes:
        kubeconfig: reaches it as cluster-admin.
    """

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig."""
        ...

    def up(self) -> None:
        """Make sure that it runs."""
        ...

    def load_image(self, archive: Path, name: str) -> None:
        """Give it the image `name` from a docker-archive."""
        ...

    def images(self) -> dict[str, str]:
        """Make sure that it can run all our images: `s1vl` -> `localhost/s1vl:TAG` and so on."""
        ...


@dataclass(frozen=True)
class Local:
    """The cluster of `python -m hack.cluster up`."""

    kubeconfig: Path = paths.KUBECONFIG

    def up(self) -> None:
        """Start it unless it runs."""
        local_up()

    def load_image(self, archive: Path, name: str) -> None:
        """Import into its containerd unless it is there."""
        if name not in containerd.images():
            containerd.import_image(archive)

    def images(self) -> dict[str, str]:
        """Build and import what is missing."""
        images = builder.find([])
        references = builder.build(images)
        load_into_cluster(images, references)
        return references


@dataclass(frozen=True)
class Current:
    """The cluster that the user's own kubeconfig names."""

    kubeconfig: Path

    def up(self) -> None:
        """It is the user's: only look whether it answers.

        Raises:
            Failure: it does not.
        """
        _run(str(ensure_program("kubectl")), f"--kubeconfig={self.kubeconfig}", "version", "--request-timeout=20s")

    def load_image(self, archive: Path, name: str) -> None:
        """Not possible: push the image to a registry that the cluster reaches.

        Raises:
            Failure: always.
        """
        raise Failure(
            f"CLUSTER=current pulls images from a registry; push {name} ({archive}) and set S1VL_IMAGE_PREFIX"
        )

    def images(self) -> dict[str, str]:
        """The images in the registry of S1VL_IMAGE_PREFIX, with the tag S1VL_IMAGE_TAG (latest).

        Raises:
            Failure: S1VL_IMAGE_PREFIX is not set.
        """
        prefix = os.environ.get("S1VL_IMAGE_PREFIX", "").rstrip("/")
        if not prefix:
            raise Failure("CLUSTER=current needs S1VL_IMAGE_PREFIX, the registry and path of the images")
        tag = os.environ.get("S1VL_IMAGE_TAG") or "latest"
        return {image.name: f"{prefix}/{image.name}:{tag}" for image in builder.find([])}


@dataclass(frozen=True)
class Kind:
    """A cluster made by kind, for machines with Docker and a registry."""

    kubeconfig: Path = paths.LOCAL / "kind" / "kubeconfig"

    def up(self) -> None:
        """Create the cluster `s1vl`, or use it when it exists.

        Raises:
            Failure: kind is missing or failed.
        """
        if shutil.which("kind") is None:
            raise Failure("CLUSTER=kind needs `kind` on PATH")
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        if KIND_NAME in _run("kind", "get", "clusters").split():
            _run("kind", "export", "kubeconfig", "--name", KIND_NAME, "--kubeconfig", str(self.kubeconfig))
        else:
            with step("create the kind cluster"):
                config = ("--config", str(KIND_CONFIG), "--kubeconfig", str(self.kubeconfig))
                _run("kind", "create", "cluster", "--name", KIND_NAME, *config, "--wait", "180s")
        self._add_gpus()
        self._allow_shared_volumes()

    def load_image(self, archive: Path, name: str) -> None:
        """Load into the node."""
        with step(f"load {name} into kind"):
            _run("kind", "load", "image-archive", str(archive), "--name", KIND_NAME)

    def images(self) -> dict[str, str]:
        """Build what has changed and load all."""
        images = builder.find([])
        references = builder.build(images)
        for image in images:
            self.load_image(builder.archive_path(image), references[image.name])
        return references

    def _kubectl(self, *args: str) -> str:
        return _run(str(ensure_program("kubectl")), f"--kubeconfig={self.kubeconfig}", *args)

    def _add_gpus(self) -> None:
        patch = ("--subresource=status", "--type=json", "-p", json.dumps(addons.gpu_patch()))
        self._kubectl("patch", "node", f"{KIND_NAME}-control-plane", *patch)

    def _allow_shared_volumes(self) -> None:
        """Let the class `standard` serve ReadWriteMany, which it only does from a path that all nodes share."""
        config = json.dumps({"sharedFileSystemPath": "/var/local-path-provisioner"})
        namespace = ("-n", "local-path-storage")
        patch = json.dumps({"data": {"config.json": config}})
        said = self._kubectl("patch", "configmap", "local-path-config", *namespace, "--type=merge", "-p", patch)
        if "no change" not in said:
            self._kubectl("rollout", "restart", "deployment/local-path-provisioner", *namespace)
            self._kubectl("rollout", "status", "deployment/local-path-provisioner", *namespace, "--timeout=120s")


def resolve(cluster: str) -> Target:
    """The target called `cluster`.

    Raises:
        Failure: neither `local`, `current` nor `kind`.
    """
    if cluster == "local":
        return Local()
    if cluster == "current":
        named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        return Current(Path(named) if named else Path.home() / ".kube" / "config")
    if cluster == "kind":
        return Kind()
    raise Failure(f"CLUSTER={cluster} is not known; it is local, current or kind")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
