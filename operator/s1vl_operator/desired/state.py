"""Everything that must exist for one S1VLDeployment, in the order in which it is applied."""

from __future__ import annotations

from s1vl_operator.api.v1alpha1 import RESTARTED_AT, S1VLDeployment
from s1vl_operator.desired import autoscaling, engine, names, network, orchestrator, patch, sandbox, storage
from s1vl_operator.desired.context import Context, Manifest, SecretTemplate, SecretValue


def desired_state(deployment: S1VLDeployment, context: Context) -> list[Manifest]:
    """All objects but Secrets, fully labelled; claims have no owner, everything else goes with the deployment.

    Policies come before the pods that they confine, claims before the pods that mount them.
    """
    made = [
        *storage.claims(deployment),
        *network.policies(deployment, context),
        *engine.manifests(deployment, context),
        *(m for tenant in deployment.spec.tenants for m in sandbox.manifests(deployment, context, tenant)),
        *orchestrator.manifests(deployment, context),
        *autoscaling.manifests(deployment, context),
    ]
    restarted = {key: value for key, value in deployment.metadata.annotations.items() if key == RESTARTED_AT}
    return [_annotated(manifest, restarted) if restarted else manifest for manifest in made]


def desired_secrets(deployment: S1VLDeployment, context: Context) -> list[SecretTemplate]:  # noqa: ARG001 (as above)
    """The Secrets that are made once when they are absent, before everything else, and never written again."""
    secrets = [_secret(deployment, names.orchestrator(deployment), "orchestrator", None, cacheSalt=RANDOM)]
    for tenant in deployment.spec.tenants:
        name = names.sandbox(deployment, tenant.name)
        digest = SecretValue("sha256_of", "apiKey")
        secrets.append(_secret(deployment, name, "sandbox", tenant.name, apiKey=RANDOM, apiKeySha256=digest))
        if tenant.api_key_secret_ref is None:
            name = names.tenant_key(deployment, tenant.name)
            secrets.append(_secret(deployment, name, "orchestrator", tenant.name, apiKey=RANDOM))
    return secrets


def service_url(deployment: S1VLDeployment) -> str:
    """The URL of the orchestrator inside the cluster."""
    host = names.host(names.orchestrator(deployment), deployment.namespace)
    return f"http://{host}:{deployment.spec.orchestrator.port}"


RANDOM = SecretValue("random_key")


def _annotated(manifest: Manifest, annotations: dict[str, str]) -> Manifest:
    """A workload with more annotations in its pod template; anything else as it is."""
    if manifest["kind"] not in ("Deployment", "StatefulSet"):
        return manifest
    template = patch.merge(manifest["spec"]["template"], {"metadata": {"annotations": annotations}})
    return {**manifest, "spec": {**manifest["spec"], "template": template}}


def _secret(
    deployment: S1VLDeployment, name: str, component: names.Component, tenant: str | None, **keys: SecretValue
) -> SecretTemplate:
    metadata = names.metadata(deployment, name, component, tenant)
    manifest: Manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque"}
    return SecretTemplate(name, manifest, keys)
