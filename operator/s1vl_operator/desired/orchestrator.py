"""The orchestrator: Deployment, Service, configuration, and the few rights that it needs in the cluster."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import yaml

from s1vl_operator.api.fields import quantity
from s1vl_operator.api.images import RetentionSpec
from s1vl_operator.api.rules import MANAGEMENT_PORT
from s1vl_operator.api.v1alpha1 import S1VLDeployment, SecretKeyRef, TenantSpec
from s1vl_operator.desired import names, patch, paths, security, vllm, workload
from s1vl_operator.desired.context import Context, Manifest
from s1vl_operator.desired.sandbox import idle_timeout

CONFIG_KEY = "config.yaml"
PODS_KEY = "pods.yaml"
EXIT_MARGIN = 50
"""Seconds beyond the longest job that a pod gets to end. For the first of them it takes requests still."""


def manifests(deployment: S1VLDeployment, context: Context) -> list[Manifest]:
    """All objects of the orchestrator but its Secrets, in an order in which they can be created."""
    autoscaling, replicas = deployment.spec.orchestrator.autoscaling, deployment.spec.orchestrator.replicas or 0
    fewest = autoscaling.min if autoscaling else replicas
    name = names.orchestrator(deployment)
    return [
        _object(deployment, "v1", "ServiceAccount", automountServiceAccountToken=False),
        _object(deployment, "rbac.authorization.k8s.io/v1", "Role", rules=_rules(deployment)),
        _role_binding(deployment),
        *([_config_map(deployment, context)] if context.protocol else []),
        _service(deployment),
        *([workload.disruption_budget(deployment, name, "orchestrator")] if fewest > 1 else []),
        _deployment(deployment, context),
    ]


def config(deployment: S1VLDeployment, protocol: str) -> dict[str, Any]:
    """The orchestrator's configuration file, version 1.

    Args:
        deployment: the custom resource.
        protocol: by its name, or as a profile's text.
    """
    spec, namespace = deployment.spec, deployment.namespace
    table = paths.table(deployment)
    return {
        "version": 1,
        "deployment": {"namespace": namespace, "name": deployment.name},
        "engine": {
            "url": f"http://{names.host(names.engine(deployment), namespace)}:{spec.engine.port}",
            "podsHost": names.host(names.engine_pods(deployment), namespace),
            "model": vllm.served_name(deployment),
            "maxModelLen": spec.engine.max_model_len,
            "imagesPerPrompt": spec.engine.images_per_prompt,
            "mediaRoot": table.media_root,
        },
        "images": {**table.config, "retention": _retention(spec.images.retention)},
        "sandbox": {"profile": spec.sandbox.profile, "executionTimeoutSeconds": spec.sandbox.execution_timeout_seconds},
        "limits": {"maxTurns": spec.orchestrator.max_turns, "deadlineSeconds": spec.orchestrator.deadline_seconds},
        "protocol": protocol,
        "anonymousTenant": spec.orchestrator.anonymous_tenant,
        "cacheSaltSecret": {"name": names.orchestrator(deployment), "key": "cacheSalt"},
        "tenants": [_tenant(deployment, tenant) for tenant in spec.tenants],
    }


def config_text(deployment: S1VLDeployment, protocol: str) -> str:
    """The configuration as it stands in the ConfigMap; the same text for the same spec and protocol."""
    wanted = config(deployment, protocol)
    return yaml.dump(wanted, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def pods_text(deployment: S1VLDeployment, context: Context) -> str:
    """Which pods there are, version 1; the same text for the same pods.

    It is no part of the configuration, whose version tells whether an orchestrator has what the spec asks for.
    """
    pods = {
        tenant.name: [{"name": pod.name, "address": pod.address} for pod in context.sandbox_pods.get(tenant.name, ())]
        for tenant in deployment.spec.tenants
    }
    known = {"version": 1, "engine": {"hung": list(context.hung_engines)}, "sandboxes": pods}
    return yaml.dump(known, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=1000)


def told_hung(pods: str) -> frozenset[str]:
    """The addresses of engine pods that a text of `pods_text` takes requests from; none when somebody spoilt it."""
    try:
        engine = yaml.safe_load(pods)["engine"]
        return frozenset(address for address in engine["hung"] if isinstance(address, str))
    except (yaml.YAMLError, LookupError, TypeError):
        return frozenset()


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, so that people can read a protocol in the ConfigMap."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def api_key_ref(deployment: S1VLDeployment, tenant: TenantSpec) -> SecretKeyRef:
    """Where a tenant's API key is: in the Secret that it names, or in the one that the operator makes."""
    return tenant.api_key_secret_ref or SecretKeyRef(name=names.tenant_key(deployment, tenant.name))


def _retention(spec: RetentionSpec) -> dict[str, int]:
    # Kubernetes counts to here too.
    most = min(quantity(spec.size_per_tenant), Decimal(2**63 - 1)) if spec.size_per_tenant else 0
    return {"maxAgeSeconds": spec.days * 24 * 3600, "maxBytesPerTenant": int(most)}


def _tenant(deployment: S1VLDeployment, tenant: TenantSpec) -> dict[str, Any]:
    sandbox = names.sandbox(deployment, tenant.name)
    ref = api_key_ref(deployment, tenant)
    idle = idle_timeout(deployment, tenant)
    sleep = {"lease": names.lease(deployment, tenant.name), "idleTimeoutSeconds": idle} if idle else {}
    return {
        "name": tenant.name,
        "subPath": tenant.folder,
        "apiKeySecret": {"name": ref.name, "key": ref.key},
        "sandbox": {
            "url": f"http://{names.host(sandbox, deployment.namespace)}:{deployment.spec.sandbox.port}",
            "apiKeySecret": {"name": sandbox, "key": "apiKey"},
            **sleep,
        },
        "limits": tenant.limits.model_dump(by_alias=True),
    }


def _secret_names(deployment: S1VLDeployment) -> list[str]:
    tenants = deployment.spec.tenants
    return sorted(
        {names.orchestrator(deployment)}
        | {names.sandbox(deployment, tenant.name) for tenant in tenants}
        | {api_key_ref(deployment, tenant).name for tenant in tenants}
    )


def _rules(deployment: S1VLDeployment) -> list[Manifest]:
    """Its own configuration and what this names, Secrets and Leases, again and again by name; nothing can be listed."""
    verbs = ["get"]
    tenants = deployment.spec.tenants
    leases = sorted(names.lease(deployment, tenant.name) for tenant in tenants if idle_timeout(deployment, tenant))
    renewal = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": leases,
        "verbs": ["get", "patch"],
    }
    return [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [names.orchestrator(deployment)],
            "verbs": verbs,
        },
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": _secret_names(deployment), "verbs": verbs},
        # Without names it would be all Leases of the namespace.
        *([renewal] if leases else []),
    ]


def _object(deployment: S1VLDeployment, api_version: str, kind: str, **body: Any) -> Manifest:
    metadata = names.metadata(deployment, names.orchestrator(deployment), "orchestrator")
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def _config_map(deployment: S1VLDeployment, context: Context) -> Manifest:
    text = config_text(deployment, context.protocol)
    return _object(deployment, "v1", "ConfigMap", data={CONFIG_KEY: text, PODS_KEY: pods_text(deployment, context)})


def _role_binding(deployment: S1VLDeployment) -> Manifest:
    name = names.orchestrator(deployment)
    return _object(
        deployment,
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": deployment.namespace}],
    )


def _service(deployment: S1VLDeployment) -> Manifest:
    spec = deployment.spec.orchestrator
    service = workload.service(deployment, names.orchestrator(deployment), "orchestrator", port=spec.port)
    service["spec"]["type"] = spec.service.type
    if spec.service.annotations:
        service["metadata"]["annotations"] = spec.service.annotations
    return service


def _deployment(deployment: S1VLDeployment, context: Context) -> Manifest:
    spec = deployment.spec.orchestrator
    template = workload.pod_template(
        names.labels(deployment, "orchestrator"),
        automountServiceAccountToken=True,
        serviceAccountName=names.orchestrator(deployment),
        terminationGracePeriodSeconds=spec.deadline_seconds + EXIT_MARGIN,
        containers=[_container(deployment, context)],
        volumes=[paths.table(deployment).volume, security.scratch("tmp")],
    )
    replicas = 1 if spec.replicas is None else spec.replicas
    return workload.rolling(
        deployment,
        names.orchestrator(deployment),
        "orchestrator",
        replicas=None if spec.autoscaling else replicas,
        template=patch.merge(template, spec.pod_template),
    )


def _container(deployment: S1VLDeployment, context: Context) -> Manifest:
    spec = deployment.spec.orchestrator
    config_map = f"{deployment.namespace}/{names.orchestrator(deployment)}"
    return {
        "name": "orchestrator",
        "image": context.control_image,
        "imagePullPolicy": context.image_pull_policy,
        "command": ["s1vl-orchestrator"],
        # Read through the API, not mounted: a new tenant is served within seconds and restarts nothing.
        "args": [
            *("--configmap", config_map),
            *("--port", str(spec.port)),
            *("--management-port", str(MANAGEMENT_PORT)),
        ],
        "env": workload.env(HOME="/tmp"),  # noqa: S108 (a volume of the pod's own)
        "ports": [
            {"name": "http", "containerPort": spec.port, "protocol": "TCP"},
            {"name": "management", "containerPort": MANAGEMENT_PORT, "protocol": "TCP"},
        ],
        "resources": workload.resources(spec.resources),
        "startupProbe": workload.http_probe("/healthz", period=2, failures=60),
        "readinessProbe": workload.http_probe("/readyz", period=2),
        "livenessProbe": workload.http_probe("/healthz", period=10, failures=6),
        "securityContext": security.container(),
        "volumeMounts": [paths.table(deployment).orchestrator, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
