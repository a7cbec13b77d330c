"""NetworkPolicies: everything of a deployment is closed, and exactly the needed connections are opened.

| from | to | port |
| --- | --- | --- |
| `networkPolicy.ingressFrom` (everyone) | orchestrator | its HTTP port |
| operator | orchestrator | management |
| orchestrator | engine, sandboxes | their HTTP ports |
| orchestrator | cluster DNS, API server | |
| operator | engine | its HTTP port |
| engine, only when it downloads the model | cluster DNS, the Internet | 53, 443 |
"""

from __future__ import annotations

from typing import Any

from s1vl_operator.api.rules import MANAGEMENT_PORT
from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import names
from s1vl_operator.desired.context import Context, Manifest

NODE_LOCAL_DNS = "169.254.20.10/32"
CLOUD_METADATA = {"0.0.0.0/0": ["169.254.169.254/32"], "::/0": ["fd00:ec2::254/128"]}
"""Where clouds hand out a node's own credentials, within all the addresses of each family."""


def policies(deployment: S1VLDeployment, context: Context) -> list[Manifest]:
    """All NetworkPolicies of the deployment; none when they are switched off."""
    if not deployment.spec.network_policy.enabled:
        return []
    return [
        _policy(deployment, names.default_deny(deployment), None),
        _sandbox(deployment),
        _engine(deployment, context),
        _orchestrator(deployment, context),
    ]


def _sandbox(deployment: S1VLDeployment) -> Manifest:
    return _policy(
        deployment,
        names.sandboxes(deployment),
        "sandbox",
        ingress=[{"from": [_own(deployment, "orchestrator")], "ports": _tcp(deployment.spec.sandbox.port)}],
    )


def _engine(deployment: S1VLDeployment, context: Context) -> Manifest:
    world = [{"ipBlock": {"cidr": cidr, "except": excluded}} for cidr, excluded in CLOUD_METADATA.items()]
    downloads = deployment.spec.model.source.hugging_face is not None
    return _policy(
        deployment,
        names.engine(deployment),
        "engine",
        ingress=[
            {
                "from": [_own(deployment, "orchestrator"), _operator(context)],
                "ports": _tcp(deployment.spec.engine.port),
            }
        ],
        egress=[_dns(), {"to": world, "ports": _tcp(443)}] if downloads else [],
    )


def _orchestrator(deployment: S1VLDeployment, context: Context) -> Manifest:
    spec = deployment.spec
    clients: Manifest = {"ports": _tcp(spec.orchestrator.port)}
    if spec.network_policy.ingress_from:
        clients["from"] = spec.network_policy.ingress_from
    api_server = [
        {"to": [{"ipBlock": {"cidr": cidr}}], "ports": _tcp(port)} for cidr, port in sorted(context.api_server_cidrs)
    ]
    return _policy(
        deployment,
        names.orchestrator(deployment),
        "orchestrator",
        ingress=[clients, {"from": [_operator(context)], "ports": _tcp(MANAGEMENT_PORT)}],
        egress=[
            {"to": [_own(deployment, "engine")], "ports": _tcp(spec.engine.port)},
            {"to": [_own(deployment, "sandbox")], "ports": _tcp(spec.sandbox.port)},
            _dns(),
            *api_server,
        ],
    )


def _policy(
    deployment: S1VLDeployment,
    name: str,
    component: names.Component | None,
    ingress: list[Manifest] | None = None,
    egress: list[Manifest] | None = None,
) -> Manifest:
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": names.selector(deployment, component)},
        "policyTypes": ["Ingress", "Egress"],
    }
    if ingress:
        spec["ingress"] = ingress
    if egress:
        spec["egress"] = egress
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": names.metadata(deployment, name, component),
        "spec": spec,
    }


def _own(deployment: S1VLDeployment, component: names.Component) -> Manifest:
    return {"podSelector": {"matchLabels": names.selector(deployment, component)}}


def _operator(context: Context) -> Manifest:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": context.operator_namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": names.MANAGED_BY}},
    }


def _dns() -> Manifest:
    """Port 53 of any pod in the cluster: where its DNS runs, and under which labels, differs between distributions."""
    return {
        "to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": NODE_LOCAL_DNS}}],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }


def _tcp(port: int) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port}]
