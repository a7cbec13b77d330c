"""Claims. They hold what cannot be made again, so nothing owns them: they outlive the S1VLDeployment."""

from __future__ import annotations

from typing import Any

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import names
from s1vl_operator.desired.context import Manifest


def claims(deployment: S1VLDeployment) -> list[Manifest]:
    """The claims that the operator creates."""
    volume, cache = deployment.spec.images.volume, deployment.spec.model.cache
    wanted = [
        (names.images_claim(deployment), volume.size, volume.storage_class_name),
        (names.cache_claim(deployment), cache.size, cache.storage_class_name),
    ]
    return [_claim(deployment, name, size, storage_class) for name, size, storage_class in wanted if size]


def _claim(deployment: S1VLDeployment, name: str, size: str, storage_class: str | None) -> Manifest:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": deployment.namespace,
            "labels": names.labels(deployment, "storage"),
        },
        "spec": spec,
    }
