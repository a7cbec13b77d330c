"""The sandboxes: for each tenant one StatefulSet of one pod, its headless Service, and the key that opens it."""

from __future__ import annotations

from typing import Any

from s1vl_operator.api.v1alpha1 import S1VLDeployment, TenantSpec
from s1vl_operator.desired import names, patch, paths, security, workload
from s1vl_operator.desired.context import Context, Manifest

TMP_SIZE = "1Gi"
EXIT_MARGIN = 15
"""Seconds beyond one execution that a sandbox gets to end."""


def manifests(deployment: S1VLDeployment, context: Context, tenant: TenantSpec) -> list[Manifest]:
    """Service and StatefulSet of one tenant's sandbox."""
    name = names.sandbox(deployment, tenant.name)
    template = _template(deployment, context, tenant)
    for last_word in (deployment.spec.sandbox.pod_template, tenant.sandbox.pod_template):
        template = patch.merge(template, last_word)
    return [
        workload.service(deployment, name, "sandbox", tenant.name, port=deployment.spec.sandbox.port, headless=True),
        workload.stateful_set(deployment, name, "sandbox", tenant.name, replicas=1, service=name, template=template),
    ]


def _template(deployment: S1VLDeployment, context: Context, tenant: TenantSpec) -> Manifest:
    spec, own = deployment.spec.sandbox, tenant.sandbox
    table = paths.table(deployment)
    image = own.image or spec.image or context.sandbox_image
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": spec.execution_timeout_seconds + EXIT_MARGIN,
        "initContainers": [_storage_init(context, image, table, tenant)],
        "containers": [_container(deployment, context, image, table, tenant)],
        "volumes": [table.volume, security.scratch("tmp", TMP_SIZE)],
    }
    runtime_class = own.runtime_class_name or spec.runtime_class_name
    if runtime_class:
        pod["runtimeClassName"] = runtime_class
    return workload.pod_template(names.labels(deployment, "sandbox", tenant.name), **pod)


def _storage_init(context: Context, image: str, table: paths.PathTable, tenant: TenantSpec) -> Manifest:
    """Makes the tenant's folder: the kubelet would make it root's, and fsGroup does nothing on NFS and on hostPath."""
    words = ["s1vl-sandbox", "storage-init", "--root", paths.VOLUME_ROOT, "--sub-path", table.folders[tenant.name]]
    return {
        "name": "storage-init",
        "image": image,
        "imagePullPolicy": context.image_pull_policy,
        "command": words,
        "env": workload.env(HOME="/tmp"),  # noqa: S108 (a volume of the pod's own)
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": security.folder_maker() if table.prepared_by_root else security.container(),
        "volumeMounts": [table.storage_init, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _container(
    deployment: S1VLDeployment, context: Context, image: str, table: paths.PathTable, tenant: TenantSpec
) -> Manifest:
    spec, own = deployment.spec.sandbox, tenant.sandbox
    key = {"name": names.sandbox(deployment, tenant.name), "key": "apiKeySha256"}
    env = workload.env(
        HOME="/tmp",  # noqa: S108
        MPLCONFIGDIR="/tmp/matplotlib",  # noqa: S108
        S1VL_SANDBOX_PORT=str(spec.port),
        S1VL_SANDBOX_MAX_SESSIONS=str(own.max_sessions or spec.max_sessions),
        S1VL_SANDBOX_WORKSPACE=table.config["sandboxPath"],
    )
    return {
        "name": "sandbox",
        "image": image,
        "imagePullPolicy": context.image_pull_policy,
        "command": ["s1vl-sandbox"],
        # Only the digest: code in the sandbox reads its own environment.
        "env": [*env, {"name": "S1VL_SANDBOX_API_KEY_SHA256", "valueFrom": {"secretKeyRef": key}}],
        "ports": [{"name": "http", "containerPort": spec.port, "protocol": "TCP"}],
        "resources": workload.resources(own.resources or spec.resources),
        "startupProbe": workload.http_probe("/healthz", period=2, failures=60),
        "readinessProbe": workload.http_probe("/readyz", period=2),
        "livenessProbe": workload.http_probe("/healthz", period=10, failures=6),
        "securityContext": security.container(),
        "volumeMounts": [table.sandboxes[tenant.name], {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
