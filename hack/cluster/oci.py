"""Writes container images without any tool: one static binary on nothing."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path


def _member(name: str, size: int, mode: int) -> tarfile.TarInfo:
    """A tar header without anything that changes from run to run."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = mode
    return member


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar of name -> (content, mode), in the order given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, (content, mode) in files.items():
            archive.addfile(_member(name, len(content), mode), io.BytesIO(content))
    return buffer.getvalue()


def write_scratch_image(binary: Path, image: str, archive: Path) -> None:
    """Write a docker-archive of an image that holds one static binary and runs it.

    Args:
        binary: a statically linked program; becomes `/<its name>`, the image's entrypoint.
        image: the image's full name, `localhost/pause:1`.
        archive: the tar file to write. The same binary and name give the same bytes.
    """
    layer = _tar({binary.name: (binary.read_bytes(), 0o755)})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{binary.name}"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": f"ADD {binary.name}"}],
        },
        sort_keys=True,
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [image], "Layers": ["layer.tar"]}]).encode()
    archive.write_bytes(_tar({name: (config, 0o644), "layer.tar": (layer, 0o644), "manifest.json": (manifest, 0o644)}))
