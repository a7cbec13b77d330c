"""The stock AIO Sandbox image as a tenant's sandbox.

Made from the image's documentation and its published start script only: it could not be run here. docs/aio.md says
what follows from that.
"""

from __future__ import annotations

from typing import Any

from s1vl_operator.api.v1alpha1 import ResourcesSpec, S1VLDeployment
from s1vl_operator.desired import names, security, workload
from s1vl_operator.desired.context import Context, Manifest

CAPABILITIES = ("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")
"""What its start as root needs: it makes a user, gives folders away, and runs supervisord and `su`, whose PAM fails
without AUDIT_WRITE. Pod Security `baseline` allows each of them."""

HOME = "/home/gem"
"""Home of the image's user. As WORKSPACE it is given to that user on every start, which a shared volume must not be."""

EPHEMERAL_STORAGE = "2Gi"
"""Its root file system is writable: logs, the user's home and whatever the code writes there."""

STARTUP_SECONDS = 180


def container(
    deployment: S1VLDeployment,
    context: Context,
    tenant: str,
    *,
    image: str,
    resources: ResourcesSpec,
    images: Manifest,
) -> Manifest:
    """The pod's one container.

    Args:
        deployment: the custom resource.
        context: the operator's surroundings.
        tenant: whose sandbox it is.
        image: the AIO image.
        resources: of the container.
        images: the mount of the tenant's folder.
    """
    key = {"name": names.sandbox(deployment, tenant), "key": "apiKey"}
    env = workload.env(
        PUBLIC_PORT=str(deployment.spec.sandbox.port),
        USER_UID=str(security.UID),
        USER_GID=str(security.UID),
        WORKSPACE=HOME,
        # Not DISABLE_JUPYTER: it is what runs the code.
        DISABLE_BROWSER="true",
        DISABLE_CODE_SERVER="true",
        DISABLE_MCP_BROWSER="true",
        DISABLE_NODEJS_REPL="true",
        DISABLE_VNC="true",
    )
    limits = {} if "ephemeral-storage" in (resources.limits or {}) else {"ephemeral-storage": EPHEMERAL_STORAGE}
    return {
        "name": "sandbox",
        "image": image,
        "imagePullPolicy": context.image_pull_policy,
        # It compares the key itself, so it needs the key and not its digest.
        "env": [*env, {"name": "SANDBOX_API_KEY", "valueFrom": {"secretKeyRef": key}}],
        "ports": [{"name": "http", "containerPort": deployment.spec.sandbox.port, "protocol": "TCP"}],
        "resources": workload.resources(resources, limits),
        "startupProbe": _probe(period=5, failures=STARTUP_SECONDS // 5),
        "readinessProbe": _probe(period=10, failures=3),
        "livenessProbe": _probe(period=30, failures=6),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
        },
        "volumeMounts": [images],
    }


def pod_security() -> dict[str, Any]:
    """Security context of the pod: root at the start, files of the volume as everybody else has them."""
    return {**security.pod(), "runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0}


def _probe(*, period: int, failures: int) -> Manifest:
    """Ask from inside: every path needs the key, and a probe by HTTP GET cannot carry a header from a Secret.

    This proves that the API answers, not that code runs: supervisord may restart a broken Jupyter behind it for ever.
    That is proven by the orchestrator's canary, without which no request is let through.
    """
    ask = (
        "exec curl --fail --silent --show-error --noproxy '*' --max-time 5 --output /dev/null"
        ' --header "X-AIO-API-Key: $SANDBOX_API_KEY" "http://127.0.0.1:$PUBLIC_PORT/v1/sandbox"'
    )
    return {
        "exec": {"command": ["sh", "-c", ask]},
        "periodSeconds": period,
        "timeoutSeconds": 8,
        "failureThreshold": failures,
    }
