"""The images of this project: what is in each, and when it has to be built anew."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.paths import LOCAL, ROOT
from hack.images import archive
from hack.images.layers import LOGS, SITE, UID, base_layer, deps_key, deps_layer
from hack.images.tree import compile_python, digest_files, pack
from hack.ui import Failure, say, step

IMAGES = LOCAL / "images"
"""Holds `<name>.tar` for each image and `images.json`, which maps names to references."""

INDEX = IMAGES / "images.json"

_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    # The root is read-only in pods; /tmp is the one place to write.
    "HOME": "/tmp",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
# Changes when anything about the image that no source file shows does.
_VERSION = "1"


@dataclass(frozen=True)
class Image:
    """One image.

    Attributes:
        name: Last part of its reference.
        lock: Name of the lock file in requirements/ whose packages it holds.
        sources: Importable things, as (folder below the checkout, name inside it).
        commands: Programs on PATH: name -> the module whose `main` they call.
        command: What it runs when nothing else is said.
    """

    name: str
    lock: str
    sources: tuple[tuple[str, str], ...]
    commands: dict[str, str]
    command: tuple[str, ...]


CATALOGUE = (
    Image(
        "s1vl",
        "control.lock",
        (("cli", "s1vl_cli"), ("operator", "s1vl_operator"), ("orchestrator", "s1vl_orchestrator")),
        {
            "s1vl": "s1vl_cli.__main__",
            "s1vl-operator": "s1vl_operator.__main__",
            "s1vl-orchestrator": "s1vl_orchestrator.__main__",
        },
        ("s1vl-operator",),
    ),
    Image(
        "s1vl-sandbox",
        "sandbox.lock",
        (("sandbox", "s1vl_sandbox"),),
        {"s1vl-sandbox": "s1vl_sandbox.__main__"},
        ("s1vl-sandbox",),
    ),
    Image(
        "s1vl-engine-sim",
        "control.lock",
        ((".", "hack/__init__.py"), (".", "hack/engine_sim")),
        {"vllm": "hack.engine_sim.__main__"},
        ("vllm", "serve"),
    ),
)


def find(names: list[str]) -> list[Image]:
    """The images of those names, all when there are none.

    Raises:
        Failure: a name is unknown.
    """
    known = {image.name: image for image in CATALOGUE}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Failure(f"there is no image {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(CATALOGUE)


def source_files(image: Image) -> list[Path]:
    """Every file of the checkout that goes into the image."""
    files: list[Path] = []
    for folder, name in image.sources:
        path = ROOT / folder / name
        found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        files += [file for file in found if "__pycache__" not in file.parts]
    if not files:
        raise Failure(f"nothing to put into {image.name}: {', '.join(name for _, name in image.sources)} is missing")
    return files


def reference(image: Image) -> str:
    """The image's full name; its tag tells its content, so an unchanged image is never built or loaded again."""
    builder = digest_files(Path(__file__).parent.glob("*.py"), ROOT)
    parts = (_VERSION, image.name, deps_key(ROOT / "requirements" / image.lock), builder, _project_version())
    content = hashlib.sha256("\0".join((*parts, digest_files(source_files(image), ROOT))).encode()).hexdigest()
    return f"localhost/{image.name}:{content[:12]}"


def archive_path(image: Image) -> Path:
    """Where the image's archive is written."""
    return IMAGES / f"{image.name}.tar"


def build(images: list[Image]) -> dict[str, str]:
    """Build what has changed and return all references by name.

    Raises:
        Failure: with the log to read.
    """
    IMAGES.mkdir(parents=True, exist_ok=True)
    built: dict[str, str] = json.loads(INDEX.read_text()) if INDEX.exists() else {}
    for image in images:
        wanted = reference(image)
        if built.get(image.name) == wanted and archive_path(image).exists():
            say(f"  ok  image {wanted} is built already")
            continue
        # First forget it: a build that is killed must not leave an archive under another's name.
        built.pop(image.name, None)
        _write_index(built)
        _build_one(image, wanted)
        built[image.name] = wanted
        _write_index(built)
    return built


def _write_index(references: dict[str, str]) -> None:
    part = INDEX.with_name(f"{INDEX.name}.part")
    part.write_text(json.dumps(references, indent=2, sort_keys=True) + "\n")
    part.replace(INDEX)


def _build_one(image: Image, wanted: str) -> None:
    base = base_layer()
    deps = deps_layer(ROOT / "requirements" / image.lock, base)
    with step(f"image {wanted}") as shown, tempfile.TemporaryDirectory(dir=IMAGES, prefix="part-") as part:
        tree = Path(part) / "tree"
        tree.mkdir(mode=0o755)
        _copy_sources(image, tree)
        compile_python(tree, base.root, LOGS / f"images-{image.name}.log")
        top = Path(part) / "layer.tar"
        pack(tree, top)
        layers = [base.tar, deps.tar, top]
        config = archive.image_config(
            [archive.digest(layer) for layer in layers], _ENV, ("tini", "--"), image.command, f"{UID}:{UID}"
        )
        archive.write(archive_path(image), wanted, layers, config)
        shown.note = f"{archive_path(image).stat().st_size / 2**20:.0f} MiB"


def _copy_sources(image: Image, tree: Path) -> None:
    site = tree / SITE
    for folder, _ in image.sources:
        for file in source_files(image):
            origin = ROOT / folder
            if file.is_relative_to(origin):
                target = site / file.relative_to(origin)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    _write_metadata(site)
    programs = tree / "usr/local/bin"
    programs.mkdir(parents=True)
    for name, module in image.commands.items():
        script = programs / name
        script.write_text(f"#!/usr/bin/python3\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n")
        script.chmod(0o755)
    for path in tree.rglob("*"):
        # Whatever the umask and the checkout say, any user may read.
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _write_metadata(site: Path) -> None:
    """What `importlib.metadata.version("s1vl")` reads."""
    info = site / f"s1vl-{_project_version()}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: s1vl\nVersion: {_project_version()}\n")


def _project_version() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version
