"""The sandboxes: for each tenant one Deployment, its headless Service, and the key that opens it.

The pods of one sandbox share nothing but the tenant's folder: a session lives in one of them, and ends with it. So a
pod that is to go drains: it takes no new sessions, and ends when its last one does.
"""

from __future__ import annotations

from typing import Any

from s1vl_operator.api.v1alpha1 import GROUP, S1VLDeployment, TenantSpec
from s1vl_operator.desired import aio, names, patch, paths, security, workload
from s1vl_operator.desired.context import Context, Manifest

TMP_SIZE = "1Gi"
RUN_SIZE = "2Gi"
STATE_DIR = "/run/s1vl"
"""What server and kernels share: the socket between them, and the kernels' working folders."""
KEY_ANNOTATION = f"{GROUP}/api-key-secret-uid"
"""On the pod template: which Secret, of all that had or will have that name, its pods were made with."""
EXIT_MARGIN = 30
"""Seconds beyond the longest job that a sandbox gets to end."""


def manifests(deployment: S1VLDeployment, context: Context, tenant: TenantSpec) -> list[Manifest]:
    """Lease, Service, disruption budget and Deployment of one tenant's sandbox."""
    name, most = names.sandbox(deployment, tenant.name), replicas(deployment, tenant)
    wanted = 0 if tenant.name in context.asleep else most
    template = _template(deployment, context, tenant)
    for last_word in (deployment.spec.sandbox.pod_template, tenant.sandbox.pod_template):
        template = patch.merge(template, last_word)
    return [
        *([_lease(deployment, tenant)] if idle_timeout(deployment, tenant) else []),
        workload.service(deployment, name, "sandbox", tenant.name, port=deployment.spec.sandbox.port, headless=True),
        *([workload.disruption_budget(deployment, name, "sandbox", tenant.name)] if most > 1 else []),
        workload.rolling(deployment, name, "sandbox", tenant.name, replicas=wanted, template=template),
    ]


def replicas(deployment: S1VLDeployment, tenant: TenantSpec) -> int:
    """Pods that a tenant's sandbox has while it is awake."""
    return tenant.sandbox.replicas or deployment.spec.sandbox.replicas


def idle_timeout(deployment: S1VLDeployment, tenant: TenantSpec) -> int:
    """Seconds without a request after which a tenant's sandbox falls asleep; 0 for never."""
    own = tenant.sandbox.idle_timeout_seconds
    return deployment.spec.sandbox.idle_timeout_seconds if own is None else own


def _lease(deployment: S1VLDeployment, tenant: TenantSpec) -> Manifest:
    """What the orchestrator renews while the tenant has requests; what is in it is the orchestrator's alone."""
    metadata = names.metadata(deployment, names.lease(deployment, tenant.name), "sandbox", tenant.name)
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}


def _template(deployment: S1VLDeployment, context: Context, tenant: TenantSpec) -> Manifest:
    spec, own = deployment.spec.sandbox, tenant.sandbox
    table = paths.table(deployment)
    images = table.sandboxes[tenant.name]
    resources = own.resources or spec.resources
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": deployment.spec.orchestrator.deadline_seconds + EXIT_MARGIN,
        "initContainers": [_storage_init(deployment, context, table, tenant)],
    }
    volumes = [table.volume, security.scratch("tmp", TMP_SIZE)]
    if spec.profile == "aio":
        pod["securityContext"] = aio.pod_security()
        image = own.image or spec.image or ""  # One of them is there: api.rules.
        pod["containers"] = [
            aio.container(deployment, context, tenant.name, image=image, resources=resources, images=images)
        ]
    else:
        pod["containers"] = [
            _server(deployment, context, tenant, images),
            _kernels(deployment, context, tenant, images, workload.resources(resources)),
        ]
        volumes += [security.scratch("kernels-tmp", TMP_SIZE), security.scratch("run", RUN_SIZE)]
    pod["volumes"] = volumes
    runtime_class = own.runtime_class_name or spec.runtime_class_name
    if runtime_class:
        pod["runtimeClassName"] = runtime_class
    # A container reads its key when it starts: with another Secret the pods must be others.
    key = context.secret_uids.get(names.sandbox(deployment, tenant.name))
    annotations = {KEY_ANNOTATION: key} if key else None
    return workload.pod_template(names.labels(deployment, "sandbox", tenant.name), annotations, **pod)


def _storage_init(deployment: S1VLDeployment, context: Context, table: paths.PathTable, tenant: TenantSpec) -> Manifest:
    """Makes the tenant's folder: the kubelet would make it root's, and fsGroup does nothing on NFS and on hostPath."""
    words = ["s1vl-sandbox", "storage-init", "--root", paths.VOLUME_ROOT, "--sub-path", table.folders[tenant.name]]
    foreign = deployment.spec.sandbox.profile == "aio"
    rights = security.container(security.UID) if foreign else security.container()
    return {
        "name": "storage-init",
        "image": context.sandbox_image if foreign else _image(deployment, context, tenant),
        "imagePullPolicy": context.image_pull_policy,
        "command": words,
        "env": workload.env(HOME="/tmp"),  # noqa: S108 (a volume of the pod's own)
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": security.folder_maker() if table.prepared_by_root else rights,
        "volumeMounts": [table.storage_init, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _server(deployment: S1VLDeployment, context: Context, tenant: TenantSpec, images: Manifest) -> Manifest:
    """What answers the orchestrator; it has the key's digest, and runs none of the model's code."""
    spec, own = deployment.spec.sandbox, tenant.sandbox
    key = {"name": names.sandbox(deployment, tenant.name), "key": "apiKeySha256"}
    env = [
        *_env(deployment, tenant),
        *workload.env(
            S1VL_SANDBOX_PORT=str(spec.port), S1VL_SANDBOX_MAX_SESSIONS=str(own.max_sessions or spec.max_sessions)
        ),
        {"name": "S1VL_SANDBOX_API_KEY_SHA256", "valueFrom": {"secretKeyRef": key}},
    ]
    return {
        "name": "sandbox",
        "image": _image(deployment, context, tenant),
        "imagePullPolicy": context.image_pull_policy,
        "command": ["s1vl-sandbox", "serve"],
        "env": env,
        "ports": [{"name": "http", "containerPort": spec.port, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
        "startupProbe": workload.http_probe("/healthz", period=2, failures=60),
        "readinessProbe": workload.http_probe("/readyz", period=2),
        "livenessProbe": workload.http_probe("/healthz", period=10, failures=6),
        "securityContext": security.container(security.SERVER_UID),
        "volumeMounts": _mounts(images, "tmp"),
    }


def _kernels(
    deployment: S1VLDeployment, context: Context, tenant: TenantSpec, images: Manifest, resources: Manifest
) -> Manifest:
    """What runs the model's code; it has no key and no port, and shares no processes with the server."""
    return {
        "name": "kernels",
        "image": _image(deployment, context, tenant),
        "imagePullPolicy": context.image_pull_policy,
        "command": ["s1vl-sandbox", "kernels"],
        "env": [*_env(deployment, tenant), *workload.env(MPLCONFIGDIR="/tmp/matplotlib")],  # noqa: S108
        "resources": resources,
        "securityContext": security.container(),
        "volumeMounts": _mounts(images, "kernels-tmp"),
    }


def _image(deployment: S1VLDeployment, context: Context, tenant: TenantSpec) -> str:
    return tenant.sandbox.image or deployment.spec.sandbox.image or context.sandbox_image


def _env(deployment: S1VLDeployment, tenant: TenantSpec) -> list[Manifest]:
    strict = (tenant.sandbox.require_isolation or deployment.spec.sandbox.require_isolation) == "strict"
    return workload.env(
        HOME="/tmp",  # noqa: S108
        S1VL_SANDBOX_KERNELS="separate",
        S1VL_SANDBOX_STATE_DIR=STATE_DIR,
        S1VL_SANDBOX_WORKSPACE=deployment.spec.images.sandbox_path,
        **({"S1VL_SANDBOX_REQUIRE_ISOLATION": "strict"} if strict else {}),
    )


def _mounts(images: Manifest, tmp: str) -> list[Manifest]:
    return [images, {"name": tmp, "mountPath": "/tmp"}, {"name": "run", "mountPath": STATE_DIR}]  # noqa: S108
