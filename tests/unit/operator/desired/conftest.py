from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from s1vl_operator.api.v1alpha1 import S1VLDeployment, parse
from s1vl_operator.desired import Context, Manifest, desired_state

CONTEXT = Context(
    control_image="localhost/s1vl:1",
    sandbox_image="localhost/s1vl-sandbox:1",
    engine_image="vllm/vllm-openai:v0.11.2",
    image_pull_policy="IfNotPresent",
    operator_namespace="s1vl-system",
    api_server_cidrs=(("10.244.0.1/32", 6443),),
    keda=True,
)


@pytest.fixture
def context() -> Context:
    return CONTEXT


def deployment(
    spec: dict[str, Any] | None = None, name: str = "demo", namespace: str = "lab", **annotations: str
) -> S1VLDeployment:
    """A parsed custom resource with annotations of our own group, e.g. `restartedAt`."""
    own = {f"s1vl.io/{key}": value for key, value in annotations.items()}
    metadata = {"name": name, "namespace": namespace, "uid": "0f0f", "generation": 1, "annotations": own}
    return parse({"metadata": metadata, "spec": {"tenants": [{"name": "chem"}], **(spec or {})}})


def state(spec: dict[str, Any] | None = None, protocol: str = "s1vl", **metadata: str) -> dict[str, Manifest]:
    """The desired state as {Kind/name: manifest}."""
    manifests = desired_state(deployment(spec, **metadata), replace(CONTEXT, protocol=protocol))
    return {f"{m['kind']}/{m['metadata']['name']}": m for m in manifests}


def pod(manifest: Manifest) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def container(manifest: Manifest, name: str = "") -> dict[str, Any]:
    """The pod's container of that name; without one, its first."""
    return next(c for c in pod(manifest)["containers"] if name in ("", c["name"]))


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}
