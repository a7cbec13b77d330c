"""`S1VLDeployment` of `s1vl.io/v1alpha1`: the models are the source of the CRD, of the defaults and of every check.

The defaults are the model card's values, so that a spec with nothing but one tenant is the card's set-up.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from s1vl_operator.api.engine import EngineSpec, ModelSpec
from s1vl_operator.api.fields import Model
from s1vl_operator.api.images import ImagesSpec, VolumeSpec
from s1vl_operator.api.rules import broken
from s1vl_operator.api.serving import NetworkPolicySpec, OrchestratorSpec, SandboxSpec, TenantSpec
from s1vl_operator.api.shared import ResourcesSpec, SecretKeyRef

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "RESTARTED_AT",
    "SHORT",
    "VERSION",
    "EngineSpec",
    "ImagesSpec",
    "InvalidSpec",
    "ModelSpec",
    "NetworkPolicySpec",
    "ObjectMeta",
    "OrchestratorSpec",
    "ResourcesSpec",
    "S1VLDeployment",
    "S1VLDeploymentSpec",
    "SandboxSpec",
    "SecretKeyRef",
    "TenantSpec",
    "VolumeSpec",
    "parse",
]

GROUP = "s1vl.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "S1VLDeployment"
PLURAL = "s1vldeployments"
SHORT = "s1vl"
RESTARTED_AT = f"{GROUP}/restartedAt"
"""Annotation of the custom resource; another text than before restarts all pods."""


class InvalidSpec(Exception):  # noqa: N818 (the name of the condition's reason that it becomes)
    """The custom resource says something that cannot be done.

    Attributes:
        path: the field, e.g. `spec.tenants[1].subPath`.
        message: what is wrong with it, without the path.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message


class S1VLDeploymentSpec(Model):
    """What to run. Everything but `tenants` has a default."""

    model: ModelSpec = Field(default_factory=ModelSpec)
    """The model to serve."""
    engine: EngineSpec = Field(default_factory=EngineSpec)
    """The inference engine, vLLM."""
    images: ImagesSpec = Field(default_factory=ImagesSpec)
    """The image volume and its paths."""
    sandbox: SandboxSpec = Field(default_factory=SandboxSpec)
    """The tenants' code sandboxes."""
    orchestrator: OrchestratorSpec = Field(default_factory=OrchestratorSpec)
    """The service that clients talk to."""
    tenants: list[TenantSpec] = Field(min_length=1, max_length=200)
    """Who is served; each with a folder, a sandbox and a key of its own."""
    network_policy: NetworkPolicySpec = Field(default_factory=NetworkPolicySpec)
    """Which connections are open."""
    paused: bool = False
    """Change nothing in the cluster until this is false again: nothing is mended, scaled, woken or restarted. What runs
    goes on, and the status is still kept."""


class ObjectMeta(Model, extra="ignore"):
    """The part of the metadata that the operator uses."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
    annotations: dict[str, str] = Field(default_factory=dict)


class S1VLDeployment(Model, extra="ignore"):
    """A custom resource that has passed every check; `status` is what the API server had, unchecked."""

    metadata: ObjectMeta
    spec: S1VLDeploymentSpec
    status: dict[str, Any] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The resource's namespace."""
        return self.metadata.namespace


def parse(cr: dict[str, Any]) -> S1VLDeployment:
    """Check a custom resource and fill in its defaults.

    Every rule of the CRD is checked again here: the CRD in the cluster may be older than the operator.

    Raises:
        InvalidSpec: the first thing that is wrong, by the order of fields, and how many more there are.
    """
    try:
        deployment = S1VLDeployment.model_validate(cr)
    except ValidationError as error:
        problems = [(_dotted(e["loc"]), e["msg"]) for e in error.errors(include_url=False, include_context=False)]
    else:
        problems = broken(deployment)
        if not problems:
            return deployment
    path, message = problems[0]
    raise InvalidSpec(path, message + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))


def _dotted(loc: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
