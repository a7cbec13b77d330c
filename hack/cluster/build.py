"""Builds every program of the cluster from its pinned Go module, once per machine."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hack.cluster import paths
from hack.ui import Failure, step

GO_MINIMUM = (1, 26)


@dataclass(frozen=True)
class Source:
    """What a program is made from: a module under `gomod/`, a package in it, values for the linker's -X."""

    module: str
    package: str
    values: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the module."""
        return paths.GOMOD / self.module

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of `go build`."""
        return ("-trimpath", "-ldflags", " ".join(["-s -w", *(f"-X {value}" for value in self.values)]))


def pinned(module: str, path: str) -> str:
    """The version of the Go module `path` that `gomod/<module>/go.mod` requires, like `v1.35.4`."""
    text = (paths.GOMOD / module / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require )?{re.escape(path)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise Failure(f"gomod/{module}/go.mod does not require {path}")
    return found.group(1)


def _kubernetes(name: str) -> Source:
    version = "k8s.io/component-base/version"
    values = (
        f"{version}.gitVersion={KUBERNETES_VERSION}",
        f"{version}.gitMajor={KUBERNETES_MAJOR}",
        f"{version}.gitMinor={KUBERNETES_MINOR}",
    )
    return Source("kubernetes", f"k8s.io/kubernetes/cmd/{name}", values)


KUBERNETES_VERSION = pinned("kubernetes", "k8s.io/kubernetes")
KUBERNETES_MAJOR, KUBERNETES_MINOR = KUBERNETES_VERSION[1:].split(".")[:2]

SOURCES = {
    "pause": Source("pause", "."),
    "etcd": Source("etcd", "go.etcd.io/etcd/server/v3"),
    **{
        name: _kubernetes(name)
        for name in ("kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    },
    "coredns": Source("coredns", "github.com/coredns/coredns"),
    "kube-network-policies": Source("netpol", "sigs.k8s.io/kube-network-policies/cmd"),
    "metrics-server": Source("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"),
    "helm": Source(
        "helm",
        "helm.sh/helm/v3/cmd/helm",
        (
            f"helm.sh/helm/v3/internal/version.version={pinned('helm', 'helm.sh/helm/v3')}",
            f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor={KUBERNETES_MAJOR}",
            f"helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor={KUBERNETES_MINOR}",
            f"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor={KUBERNETES_MAJOR}",
            f"helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor={KUBERNETES_MINOR}",
        ),
    ),
}


def go_version(go: Path) -> str:
    """The version of a Go program, like `go1.26.6`; empty when it does not run."""
    try:
        done = subprocess.run([str(go), "version"], capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return ""
    found = re.search(r"\bgo\d+\.\d+(\.\d+)?\b", done.stdout)
    return found.group() if found else ""


@cache
def find_go() -> tuple[Path, str]:
    """The Go program to build with, and its version: on PATH if new enough, else the one `hack/bootstrap.sh` installed.

    Raises:
        Failure: there is none.
    """
    on_path = shutil.which("go")
    for go in ([Path(on_path)] if on_path else []) + sorted((paths.CACHE / "go").glob("*/go/bin/go"), reverse=True):
        version = go_version(go)
        if version and tuple(int(part) for part in version[2:].split(".")[:2]) >= GO_MINIMUM:
            return go, version
    wanted = ".".join(map(str, GO_MINIMUM))
    raise Failure(f"Go {wanted} or newer is needed to build the cluster's programs; run hack/bootstrap.sh --cluster")


def key(name: str) -> str:
    """What the built program depends on, as 16 hex digits: its module's files, its flags, the Go version."""
    source = SOURCES[name]
    digest = hashlib.sha256(repr((source, find_go()[1])).encode())
    for file in sorted(source.folder.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _build(name: str, folder: Path) -> None:
    """Build into a folder beside `folder` and rename it: others see a whole program or none."""
    source = SOURCES[name]
    log = paths.PROGRAMS / "log" / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    command = [str(find_go()[0]), "build", *source.flags, "-o", str(partial / name), source.package]
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("w") as output:
            done = subprocess.run(
                command,
                cwd=source.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"},
                check=False,
            )
        if done.returncode != 0:
            raise Failure(f"building {name} ended with {done.returncode}: {' '.join(command)}", log)
        if folder.exists():
            return
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def ensure_program(name: str) -> Path:
    """Build one program unless it is in the cache, link it into `paths.BIN`, and return that link.

    Raises:
        Failure: it could not be built; names the log.
    """
    folder = paths.PROGRAMS / f"{name}-{key(name)}"
    built = folder / name
    if not built.exists():
        with step(f"build {name}"):
            _build(name, folder)
    link = paths.BIN / name
    if not link.is_symlink() or link.readlink() != built:
        paths.BIN.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f".{name}.{os.getpid()}")
        fresh.symlink_to(built)
        fresh.replace(link)
    return link


def ensure_all() -> None:
    """Build every program that is not in the cache."""
    for name in SOURCES:
        ensure_program(name)
