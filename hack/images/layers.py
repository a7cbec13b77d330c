"""The two slow layers, made once and kept in the cache: the base system, and the dependencies of a lock file."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hack.cluster.paths import CACHE, LOCAL, ROOT
from hack.images.tree import compile_python, pack, run
from hack.ui import Failure, step

LOGS = LOCAL / "log"

SUITE = "bookworm"
PACKAGES = ("python3", "ca-certificates", "libseccomp2", "tini")
PYTHON = "3.11"
SITE = Path(f"usr/local/lib/python{PYTHON}/dist-packages")
"""Where Debian's Python looks for packages that Debian did not install."""

UID = 10001
USER = "s1vl"

# Written anew on a change of anything below that is not part of a key by itself.
_BASE_VERSION = "1"
_DEPS_VERSION = "1"

# Nothing of this is needed to run; copyright files stay.
_TRIMMED = (
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/share/zoneinfo/right",
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/debconf",
    "var/log",
)
# The newest glibc of a wheel that runs on bookworm (it has 2.36).
_GLIBC_MINOR = 36


@dataclass(frozen=True)
class Layer:
    """A layer in the cache.

    Attributes:
        key: Digest of what it was made from.
        tar: The layer itself.
    """

    key: str
    tar: Path


@dataclass(frozen=True)
class Base(Layer):
    """The base layer; `root` is the same as a folder, whose Python compiles the other layers."""

    root: Path


def base_key() -> str:
    """What the base system is made from."""
    return _key(_BASE_VERSION, SUITE, *PACKAGES, *_TRIMMED, PYTHON, str(UID), platform.machine())


def deps_key(lock: Path) -> str:
    """What a layer of dependencies is made from."""
    return _key(_DEPS_VERSION, base_key(), lock.read_text())


def base_layer() -> Base:
    """Debian with Python, ca-certificates, libseccomp and tini; about 70 s the first time.

    Raises:
        Failure: debootstrap is missing or failed, or this is not root.
    """
    key = base_key()
    folder = CACHE / f"base-{key[:12]}"
    base = Base(key, folder / "layer.tar", folder / "root")
    if base.tar.exists():
        return base
    if os.geteuid() != 0:
        raise Failure("the base system of the images can only be made as root (debootstrap, chroot)")
    if shutil.which("debootstrap") is None:
        raise Failure("debootstrap is not installed: apt-get install debootstrap")
    with step(f"base system: Debian {SUITE} with {', '.join(PACKAGES)}, once per machine") as shown:
        CACHE.mkdir(parents=True, exist_ok=True)
        log = LOGS / "images-base.log"
        log.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="base-part-") as part:
            Path(part).chmod(0o755)
            root = Path(part) / "root"
            include = ",".join(PACKAGES)
            run(["debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(root)], log)
            _trim(root)
            _add_user(root)
            stdlib = f"/usr/lib/python{PYTHON}"
            compile_flags = ["-q", "-j", "2", "-f", "--invalidation-mode", "unchecked-hash"]
            run(["chroot", str(root), "/usr/bin/python3", "-m", "compileall", *compile_flags, stdlib], log)
            pack(root, Path(part) / "layer.tar")
            shutil.rmtree(folder, ignore_errors=True)
            Path(part).rename(folder)
            # TemporaryDirectory wants to remove something.
            Path(part).mkdir()
        shown.note = _size(base.tar)
    return base


def _trim(root: Path) -> None:
    for name in _TRIMMED:
        for path in (root / name).glob("*"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in sorted((root / "usr/share/doc").rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.name != "copyright":
            path.unlink()
    # What debootstrap took from this machine.
    for name in ("etc/resolv.conf", "etc/hostname", "etc/machine-id"):
        (root / name).unlink(missing_ok=True)


def _add_user(root: Path) -> None:
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write(f"{USER}:x:{UID}:{UID}::/tmp:/usr/sbin/nologin\n")
    with (root / "etc/group").open("a") as group:
        group.write(f"{USER}:x:{UID}:\n")


def deps_layer(lock: Path, base: Base) -> Layer:
    """The packages of a lock file, verified by hash, compiled.

    Raises:
        Failure: pip could not get a package or a hash is wrong.
    """
    key = deps_key(lock)
    folder = CACHE / f"deps-{lock.stem}-{key[:12]}"
    layer = Layer(key, folder / "layer.tar")
    if layer.tar.exists():
        return layer
    with step(f"dependencies of {lock.relative_to(ROOT)}") as shown:
        log = LOGS / f"images-{lock.stem}.log"
        log.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="deps-part-") as part:
            tree = Path(part) / "tree"
            tree.mkdir(mode=0o755)
            site = tree / SITE
            run([sys.executable, "-m", "pip", *_pip_install(lock, site)], log)
            # Commands of dependencies: nothing calls them, and their first lines name this machine's Python.
            shutil.rmtree(site / "bin", ignore_errors=True)
            compile_python(tree, base.root, log)
            folder.mkdir(exist_ok=True)
            pack(tree, layer.tar)
        shown.note = _size(layer.tar)
    return layer


def _pip_install(lock: Path, site: Path) -> list[str]:
    """Arguments of pip: for the image's Python and C library, whatever this machine has."""
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC_MINOR, 4, -1)]
    return [
        *("install", "--disable-pip-version-check", "--no-input", "--no-compile", "--no-deps"),
        *("--require-hashes", "--only-binary", ":all:"),
        *("--implementation", "cp", "--python-version", PYTHON),
        *(argument for tag in tags for argument in ("--platform", tag)),
        *("--target", str(site), "--requirement", str(lock)),
    ]


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _size(tar: Path) -> str:
    return f"{tar.stat().st_size / 2**20:.0f} MiB"
