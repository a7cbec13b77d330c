"""What the desired state depends on besides the custom resource, and the forms in which it is handed out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Manifest = dict[str, Any]
"""A Kubernetes object as it is applied: only fields that the operator owns."""

DEFAULT_PROTOCOL = "s1vl"
"""The orchestrator's protocol where the custom resource names none."""


@dataclass(frozen=True)
class PodAddress:
    """A pod's name, and its IPv4 or IPv6 address as it stands in its status."""

    name: str
    address: str


@dataclass(frozen=True)
class Context:
    """The operator's own surroundings, and what was found where the custom resource points to.

    Attributes:
        control_image: image of the orchestrator (and operator).
        sandbox_image: image of the sandboxes, unless the custom resource names another.
        engine_image: image of the engine, unless the custom resource names another.
        image_pull_policy: Always, IfNotPresent or Never, for every container.
        operator_namespace: namespace that the operator's pods run in; they are let in by NetworkPolicies.
        api_server_cidrs: (CIDR, port) of each address of the API server that the orchestrator must reach.
        protocol: the orchestrator's protocol, by name or as a profile's text; "" when there is none to be had, and the
            orchestrator gets no configuration.
        hung_engines: addresses of engine pods that get no more requests.
        sandbox_pods: the sandbox pods that take jobs, by tenant.
        secret_uids: uids of the Secrets that the operator made, by name; none while one could not be made.
        asleep: tenants without a request for so long that their sandboxes need no pods.
        keda: whether the cluster serves KEDA's API.
    """

    control_image: str
    sandbox_image: str
    engine_image: str
    image_pull_policy: str
    operator_namespace: str
    api_server_cidrs: tuple[tuple[str, int], ...] = ()
    protocol: str = DEFAULT_PROTOCOL
    hung_engines: tuple[str, ...] = ()
    sandbox_pods: Mapping[str, tuple[PodAddress, ...]] = field(default_factory=dict)
    secret_uids: Mapping[str, str] = field(default_factory=dict)
    asleep: frozenset[str] = frozenset()
    keda: bool = False


@dataclass(frozen=True)
class SecretValue:
    """How one key of a Secret is filled.

    Attributes:
        kind: `random_key` is a fresh urlsafe token; `sha256_of` is the hex digest of another key's value.
        of: the other key, in the same Secret, of `sha256_of`; "" otherwise.
    """

    kind: Literal["random_key", "sha256_of"]
    of: str = ""


@dataclass(frozen=True)
class SecretTemplate:
    """A Secret that is created once when it is absent and never written again.

    Attributes:
        name: of the Secret.
        manifest: everything but its values (apiVersion, kind, metadata, type).
        keys: key -> how its value is made, in an order in which they can be made.
    """

    name: str
    manifest: Manifest
    keys: dict[str, SecretValue] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """The Secret's labels."""
        labels: dict[str, str] = self.manifest["metadata"]["labels"]
        return labels
