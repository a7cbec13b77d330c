"""The engine: vLLM in a StatefulSet, with a headless Service for its pods and one for clients.

It runs as a user without a name on a read-only root file system, which vLLM's image does not expect: everything that
vLLM, PyTorch and Triton write is sent to the model cache or /tmp by environment variables.
"""

from __future__ import annotations

import math
from typing import Any

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import names, patch, paths, security, vllm, workload
from s1vl_operator.desired.context import Context, Manifest

CACHE = "/models"
STARTUP_PERIOD = 2
"""Seconds between two looks at a starting engine; short, so that a quick one is not kept waiting."""
PRE_STOP = 15
"""Seconds between a pod's removal from its Services and SIGTERM: from then on vLLM answers new requests with 500."""
EXIT_MARGIN = 15
"""Seconds that vLLM gets to end after its last request."""


def manifests(deployment: S1VLDeployment, context: Context) -> list[Manifest]:
    """Services, disruption budget and StatefulSet of the engine."""
    spec = deployment.spec.engine
    name, headless = names.engine(deployment), names.engine_pods(deployment)
    template = patch.merge(_template(deployment, context), spec.pod_template)
    budget = [workload.disruption_budget(deployment, name, "engine")] if spec.replicas > 1 else []
    return [
        workload.service(deployment, headless, "engine", port=spec.port, headless=True),
        workload.service(deployment, name, "engine", port=spec.port),
        *budget,
        workload.stateful_set(
            deployment, name, "engine", None, replicas=spec.replicas, service=headless, template=template
        ),
    ]


def _template(deployment: S1VLDeployment, context: Context) -> Manifest:
    spec = deployment.spec.engine
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": PRE_STOP + spec.drain_timeout_seconds + EXIT_MARGIN,
        "containers": [_container(deployment, context)],
        "volumes": _volumes(deployment),
    }
    if spec.node_selector:
        pod["nodeSelector"] = spec.node_selector
    if spec.tolerations:
        pod["tolerations"] = spec.tolerations
    if spec.affinity:
        pod["affinity"] = spec.affinity
    return workload.pod_template(names.labels(deployment, "engine"), **pod)


def _container(deployment: S1VLDeployment, context: Context) -> Manifest:
    spec = deployment.spec.engine
    return {
        "name": "vllm",
        "image": vllm.image(deployment, context),
        "imagePullPolicy": context.image_pull_policy,
        "command": vllm.command(deployment),
        "args": vllm.args(deployment, context),
        "env": patch.merge_list(_env(deployment), spec.env, "name", whole=True),
        "ports": [{"name": "http", "containerPort": spec.port, "protocol": "TCP"}],
        "resources": workload.resources(spec.resources, {spec.gpu_resource: str(spec.gpus)}),
        "startupProbe": workload.http_probe(
            "/health", period=STARTUP_PERIOD, failures=math.ceil(spec.startup_timeout_seconds / STARTUP_PERIOD)
        ),
        "readinessProbe": workload.http_probe("/health", period=5),
        # An engine under load can be slow to answer; whether it computes is watched by the operator.
        "livenessProbe": workload.http_probe("/health", period=10, failures=6),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP}}},
        "securityContext": security.container(),
        "volumeMounts": _mounts(deployment),
    }


def _env(deployment: S1VLDeployment) -> list[Manifest]:
    source = deployment.spec.model.source.hugging_face
    own = workload.env(
        HOME="/tmp",  # noqa: S108 (a volume of the pod's own)
        # Without these getpass.getuser() fails: the user has no entry in /etc/passwd.
        USER="s1vl",
        LOGNAME="s1vl",
        HF_HOME=f"{CACHE}/hf",
        VLLM_CACHE_ROOT=f"{CACHE}/vllm",
        VLLM_NO_USAGE_STATS="1",
        TORCHINDUCTOR_CACHE_DIR="/tmp/torchinductor",  # noqa: S108
        TRITON_CACHE_DIR="/tmp/triton",  # noqa: S108
        FLASHINFER_WORKSPACE_BASE="/tmp",  # noqa: S108
    )
    if source is None:
        own += workload.env(HF_HUB_OFFLINE="1")
    elif source.token_secret_ref:
        ref = {"name": source.token_secret_ref.name, "key": source.token_secret_ref.key}
        own.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": ref}})
    return own


def _mounts(deployment: S1VLDeployment) -> list[Manifest]:
    mounts: list[Manifest] = [
        paths.table(deployment).engine,
        {"name": "model-cache", "mountPath": CACHE},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
    ]
    if deployment.spec.model.source.existing_claim:
        mounts.append({"name": "weights", "mountPath": vllm.WEIGHTS, "readOnly": True})
    if deployment.spec.engine.gpus > 1:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108
    return mounts


def _volumes(deployment: S1VLDeployment) -> list[Manifest]:
    cache, source = deployment.spec.model.cache, deployment.spec.model.source
    claim = cache.existing_claim or names.cache_claim(deployment)
    volumes: list[Manifest] = [
        paths.table(deployment).volume,
        {"name": "model-cache", "persistentVolumeClaim": {"claimName": claim}},
        security.scratch("tmp"),
    ]
    if source.existing_claim:
        weights = {"claimName": source.existing_claim.name, "readOnly": True}
        volumes.append({"name": "weights", "persistentVolumeClaim": weights})
    if deployment.spec.engine.gpus > 1:
        # The processes of one tensor parallel group talk through /dev/shm; the runtime's default of 64 MiB breaks NCCL.
        shm = {"medium": "Memory", "sizeLimit": deployment.spec.engine.shm_size}
        volumes.append({"name": "shm", "emptyDir": shm})
    return volumes
