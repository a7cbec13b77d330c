"""THE mount table: one volume with the tenants' pictures, and where each program sees it.

| who | sees file `x.png` of tenant chem as | mount |
| --- | --- | --- |
| client | `<images.clientPath>/x.png` | none: the orchestrator translates |
| chem's sandbox | `<images.sandboxPath>/x.png` | the tenant's folder, read-write |
| orchestrator | `ROOT/chem/x.png` | the whole volume, read-write |
| engine | `file://ROOT/chem/x.png` | the whole volume, read-only |
| storage-init | `VOLUME_ROOT/chem/x.png` | the whole volume, read-write, while a sandbox pod starts |

No other module writes a path of a picture: they agree because they are all made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import names
from s1vl_operator.desired.context import Manifest

ROOT = "/srv/s1vl/images"
"""The volume in orchestrator and engine; the same in both, so that a path of one is a `file://` of the other."""

VOLUME_ROOT = "/volume"
"""The volume in storage-init, apart from every path that a client or a model could know."""

VOLUME = "images"
"""Name of the volume in every pod."""


@dataclass(frozen=True)
class PathTable:
    """What `table` yields; mounts are `volumeMounts` items of the volume `VOLUME`.

    Attributes:
        volume: the `volumes` item of every pod that mounts pictures.
        engine: read-only.
        orchestrator: read-write.
        storage_init: read-write.
        sandboxes: tenant -> its own folder, read-write.
        folders: tenant -> its folder relative to the volume's root; "" is the root.
        media_root: what the engine may read by `file://`.
        config: the part `images` of the orchestrator's configuration.
        prepared_by_root: the folders of the volume can only be made by root (a host's folder).
    """

    volume: Manifest
    engine: Manifest
    orchestrator: Manifest
    storage_init: Manifest
    sandboxes: dict[str, Manifest]
    folders: dict[str, str]
    media_root: str
    config: dict[str, str]
    prepared_by_root: bool


def table(deployment: S1VLDeployment) -> PathTable:
    """The mounts of every program of the deployment."""
    images = deployment.spec.images
    folders = {tenant.name: tenant.folder for tenant in deployment.spec.tenants}
    return PathTable(
        volume={"name": VOLUME, **_source(deployment)},
        engine=_mount(ROOT, read_only=True),
        orchestrator=_mount(ROOT),
        storage_init=_mount(VOLUME_ROOT),
        sandboxes={tenant: _mount(images.sandbox_path, folder) for tenant, folder in folders.items()},
        folders=folders,
        media_root=ROOT,
        config={"root": ROOT, "clientPath": images.client_path, "sandboxPath": images.sandbox_path},
        prepared_by_root=images.volume.host_path is not None,
    )


def _mount(path: str, sub_path: str = "", read_only: bool = False) -> Manifest:
    mount: dict[str, Any] = {"name": VOLUME, "mountPath": path}
    if sub_path:
        mount["subPath"] = sub_path
    if read_only:
        mount["readOnly"] = True
    return mount


def _source(deployment: S1VLDeployment) -> dict[str, Any]:
    volume = deployment.spec.images.volume
    if volume.host_path:
        # Not DirectoryOrCreate: a misspelt folder must be said, not made.
        return {"hostPath": {"path": volume.host_path, "type": "Directory"}}
    return {"persistentVolumeClaim": {"claimName": volume.existing_claim or names.images_claim(deployment)}}
