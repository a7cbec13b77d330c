"""Under which rights pods run: all of our own pass the Pod Security level `restricted`."""

from __future__ import annotations

from typing import Any

from s1vl_operator.desired.context import Manifest

UID = 10001
"""User and group of everything of ours; the owner of the tenants' folders."""

SERVER_UID = 10002
"""User of a sandbox's server, so that the model's code in the pod's other container is not its equal."""


def pod() -> dict[str, Any]:
    """Security context of a pod; the group owns what its claims hold, where the volume's driver can do that."""
    return {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container(user: int | None = None) -> dict[str, Any]:
    """Security context of a container, of the pod's user or of another one."""
    rights: dict[str, Any] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return {**rights, "runAsNonRoot": True, "runAsUser": user, "runAsGroup": UID} if user else rights


def folder_maker() -> dict[str, Any]:
    """Security context of storage-init on a node's own folder, where only root can make and give away folders."""
    return {
        **container(),
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]},
        "runAsNonRoot": False,
        "runAsUser": 0,
        "runAsGroup": 0,
    }


def scratch(name: str, size: str | None = None) -> Manifest:
    """A writable folder that lasts as long as its pod; beyond `size` the pod is evicted."""
    return {"name": name, "emptyDir": {"sizeLimit": size} if size else {}}
