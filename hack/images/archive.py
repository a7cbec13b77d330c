"""Writes an image as the archive that `docker save` writes: `docker load` and `ctr images import` read it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hack.images.tree import MTIME

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def image_config(
    diff_ids: Sequence[str], env: Mapping[str, str], entrypoint: Sequence[str], command: Sequence[str], user: str
) -> dict[str, object]:
    """The image's configuration in the OCI format, with nothing in it that changes from build to build."""
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "User": user,
            "Env": [f"{name}={value}" for name, value in env.items()],
            "Entrypoint": list(entrypoint),
            "Cmd": list(command),
            "WorkingDir": "/tmp",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for diff_id in diff_ids]},
    }


def write(target: Path, reference: str, layers: Sequence[Path], config: dict[str, object]) -> None:
    """Write the archive, complete or not at all. Layers keep their names by digest, so importers share them."""
    config_bytes = json.dumps(config, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    rootfs = config["rootfs"]
    assert isinstance(rootfs, dict)  # image_config made it
    names = [f"{diff_id.removeprefix('sha256:')}/layer.tar" for diff_id in rootfs["diff_ids"]]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [reference], "Layers": names}]).encode()
    part = target.with_name(f"{target.name}.part")
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, layer in zip(names, layers, strict=True):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = layer.stat().st_size, MTIME
            with layer.open("rb") as file:
                tar.addfile(info, file)
        for name, content in ((config_name, config_bytes), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), MTIME
            tar.addfile(info, io.BytesIO(content))
    part.replace(target)
