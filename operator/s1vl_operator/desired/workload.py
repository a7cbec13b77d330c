"""What pods, StatefulSets, Deployments, Services and disruption budgets of all components have in common."""

from __future__ import annotations

from typing import Any

from s1vl_operator.api.v1alpha1 import ResourcesSpec, S1VLDeployment
from s1vl_operator.desired import names, security
from s1vl_operator.desired.context import Manifest


def pod_template(labels: dict[str, str], annotations: dict[str, str] | None = None, **spec: Any) -> Manifest:
    """A pod template of ours; `spec` adds to, and wins over, what is common to all."""
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        # What a container said last is what status tells of its end, also of one that writes no termination message.
        container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    return {
        "metadata": {"labels": labels, **({"annotations": annotations} if annotations else {})},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": security.pod(),
            **spec,
        },
    }


def http_probe(path: str, port: str = "http", *, period: int, timeout: int = 5, failures: int = 3) -> Manifest:
    """A probe by HTTP GET; times in seconds."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def resources(spec: ResourcesSpec, limits: dict[str, str] | None = None) -> Manifest:
    """A container's resources; extended resources such as GPUs must be asked for in the limits, and need no request."""
    merged = {"requests": dict(spec.requests or {}), "limits": {**(spec.limits or {}), **(limits or {})}}
    return {kind: values for kind, values in merged.items() if values}


def env(**values: str) -> list[Manifest]:
    """Environment variables with plain values."""
    return [{"name": name, "value": value} for name, value in values.items()]


def stateful_set(
    deployment: S1VLDeployment,
    name: str,
    component: names.Component,
    tenant: str | None,
    *,
    replicas: int,
    service: str,
    template: Manifest,
) -> Manifest:
    """A StatefulSet without claims of its own. Parallel: a pod that cannot start must not keep others from starting."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": names.metadata(deployment, name, component, tenant),
        "spec": {
            "replicas": replicas,
            "serviceName": service,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": names.selector(deployment, component, tenant)},
            "template": template,
        },
    }


def rolling(
    deployment: S1VLDeployment,
    name: str,
    component: names.Component,
    tenant: str | None = None,
    *,
    replicas: int | None,
    template: Manifest,
) -> Manifest:
    """A Deployment whose pods go when their successors are ready; `replicas` is None where an autoscaler says it."""
    spec: dict[str, Any] = {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": names.selector(deployment, component, tenant)},
        "template": template,
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": names.metadata(deployment, name, component, tenant),
        "spec": spec,
    }


def service(
    deployment: S1VLDeployment,
    name: str,
    component: names.Component,
    tenant: str | None = None,
    *,
    port: int,
    headless: bool = False,
) -> Manifest:
    """A Service with the one port `http`; a headless one lists ready pods only."""
    spec: dict[str, Any] = {
        "selector": names.selector(deployment, component, tenant),
        "ports": [{"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}],
    }
    if headless:
        spec["clusterIP"] = "None"
        # The default, said so that it is mended when somebody changes it: who asks for the pods sends them requests.
        spec["publishNotReadyAddresses"] = False
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": names.metadata(deployment, name, component, tenant),
        "spec": spec,
    }


def disruption_budget(
    deployment: S1VLDeployment, name: str, component: names.Component, tenant: str | None = None
) -> Manifest:
    """One pod at a time may be evicted; one that does not work anyway may always be."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": names.metadata(deployment, name, component, tenant),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(deployment, component, tenant)},
        },
    }
