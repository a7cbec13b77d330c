"""A whole cluster with the chart installed; each test gets a namespace of its own and leaves nothing in it.

The cluster is this machine's own (`make cluster-up`) unless S1VL_CLUSTER says `current` or `kind`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from hack.deploy import Deployed, add_resource, prepare
from hack.kube import Kube, wait_for

ROOT = Path(__file__).parents[2]
GPU = "e2e.s1vl.io/gpu"
"""An extended resource that only these tests ask for, so that a demo beside them keeps the node's GPUs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try a test that failed once more: on two cores a whole cluster stalls at times. The summary tells of it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def deployed() -> Deployed:
    return prepare(os.environ.get("S1VL_CLUSTER", "local"))


@pytest.fixture(scope="session")
def kube(deployed: Deployed) -> Kube:
    kube = deployed.kube
    add_resource(kube, GPU, 64)
    return kube


@dataclass(frozen=True)
class Space:
    """A namespace, and what the tests do in it."""

    kube: Kube
    name: str

    def deployment(self, *tenants: str | dict[str, Any], cr: str = "demo", **spec: Any) -> dict[str, Any]:
        """The quickstart with other tenants, asking for the tests' own GPUs."""
        manifest: dict[str, Any] = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
        manifest["metadata"] = {"name": cr, "namespace": self.name}
        body = manifest["spec"]
        if tenants:
            body["tenants"] = [t if isinstance(t, dict) else {"name": t} for t in tenants]
            body.get("orchestrator", {}).pop("anonymousTenant", None)
        for key, value in spec.items():
            body[key] = {**body.get(key, {}), **value} if isinstance(value, dict) else value
        body["engine"] = {**body.get("engine", {}), "gpuResource": GPU}
        return manifest

    def cr(self, name: str = "demo") -> dict[str, Any]:
        return self.kube.get("s1vl", name, self.name)

    def condition(self, kind: str, name: str = "demo") -> dict[str, Any]:
        found = {c["type"]: c for c in self.cr(name).get("status", {}).get("conditions", [])}
        return found.get(kind, {})

    def wait_condition(
        self, kind: str, status: str, reason: str = "", name: str = "demo", timeout: float = 180
    ) -> dict[str, Any]:
        """Wait until a condition of the current generation has a status (and a reason); returns it."""

        def holds() -> dict[str, Any]:
            cr = self.cr(name)
            condition = {c["type"]: c for c in cr.get("status", {}).get("conditions", [])}.get(kind, {})
            current = condition.get("observedGeneration") == cr["metadata"]["generation"]
            if not (current and condition["status"] == status and reason in ("", condition["reason"])):
                raise LookupError(f"{kind} is {condition}")
            return condition

        return wait_for(f"{kind}={status} {reason}", holds, timeout=timeout)

    def apply_ready(self, manifest: dict[str, Any]) -> None:
        self.kube.apply(manifest)
        self.wait_condition("Ready", "True", name=manifest["metadata"]["name"])

    def pods(self, selector: str = "app.kubernetes.io/part-of=s1vl") -> list[dict[str, Any]]:
        return self.kube.list("pods", self.name, selector)

    def secret(self, name: str, key: str) -> str:
        import base64

        return base64.b64decode(self.kube.get("secret", name, self.name)["data"][key]).decode()

    def tenant_key(self, tenant: str, cr: str = "demo") -> str:
        return self.secret(f"{cr}-tenant-{tenant}", "apiKey")

    def put_image(self, tenant: str, name: str, content: bytes, cr: str = "demo") -> str:
        """Write a file into a tenant's folder through the orchestrator's mount; returns the client's path."""
        path = f"/srv/s1vl/images/{tenant}/{name}"
        self.kube.exec(f"deploy/{cr}-orchestrator", self.name, "sh", "-c", f"cat > '{path}'", stdin=content)
        return f"/data/images/{name}"

    def orchestrator(self, cr: str = "demo") -> Any:
        """A context manager that yields an HTTP client for the deployment's service."""
        return _Client(self, cr)


class _Client:
    def __init__(self, space: Space, cr: str) -> None:
        self._forward = space.kube.port_forward(f"svc/{cr}-orchestrator", space.name, 10044)

    def __enter__(self) -> httpx.Client:
        self._http = httpx.Client(base_url=self._forward.__enter__(), timeout=300)
        return self._http

    def __exit__(self, *failure: Any) -> None:
        self._http.close()
        self._forward.__exit__(*failure)


@pytest.fixture
def space(kube: Kube) -> Iterator[Space]:
    yield from make_space(kube, "restricted")


@pytest.fixture(scope="module")
def shared_space(kube: Kube) -> Iterator[Space]:
    """One namespace for the tests of a module that only look."""
    yield from make_space(kube, "restricted")


def make_space(kube: Kube, level: str) -> Iterator[Space]:
    """A namespace under a Pod Security level, gone with all that is in it afterwards."""
    name = f"e2e-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": level, "s1vl.io/e2e": "true"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        yield Space(kube, name)
    finally:
        # Pods first: the namespace controller would sleep through half of their grace periods, minutes, before looking.
        # And without who makes them, so that they go at once: nobody is left for whom they would have to end in peace.
        for makers in ("s1vl", "statefulset,deployment", "replicaset"):
            kube.kubectl("delete", makers, "--all", "-n", name, "--cascade=orphan")
        ours = "app.kubernetes.io/part-of=s1vl"
        kube.kubectl("delete", "pods", "-n", name, "-l", ours, "--grace-period=1", "--wait=false")
        wait_for(f"the pods of {name} to go", lambda: not kube.list("pods", name, ours))
        kube.kubectl("delete", "namespace", name, "--wait=false")
