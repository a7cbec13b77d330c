"""`spec.sandbox`, `spec.orchestrator`, `spec.tenants` and `spec.networkPolicy`: who is served, by what.

The texts under the fields are the CRD's and the reference's descriptions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s1vl_operator.api.fields import FreeForm, Image, Model, Name, Port, TenantName
from s1vl_operator.api.shared import ConfigMapKeyRef, ResourcesSpec, SecretKeyRef


class SandboxSpec(Model):
    """The tenants' sandboxes, one each, in which the model's code runs."""

    image: Image | None = None
    """Container image. Absent: the operator's default sandbox image; the profile aio has no default."""
    profile: Literal["s1vl", "aio"] = "s1vl"
    """Kind of sandbox: s1vl is this project's own runtime, aio the stock AIO Sandbox image. That one starts as root,
    which Pod Security `restricted` refuses, and code in it can read its key; see docs/aio.md."""
    require_isolation: Literal["bestEffort", "strict"] = "bestEffort"
    """What happens on a node whose Linux cannot confine each session by itself (files, TCP, signals, system calls; from
    6.12 on it can): bestEffort runs with what there is and says so at GET /v1/sandbox, strict does not start."""
    replicas: int = Field(1, ge=1, le=16)
    """Pods of each tenant's sandbox. A job goes to the pod with the fewest, and stays there."""
    idle_timeout_seconds: int = Field(0, ge=0, le=604800)
    """Time without a request of its tenant after which a sandbox has no pods any more; the next request waits until one
    is there. 0: never."""
    port: Port = 8080
    """Port of the sandbox's HTTP API."""
    resources: ResourcesSpec = Field(
        default_factory=lambda: ResourcesSpec(
            requests={"cpu": "100m", "memory": "256Mi"}, limits={"cpu": "2", "memory": "2Gi"}
        )
    )
    """Resources of each sandbox's container that runs the code."""
    runtime_class_name: Name | None = None
    """RuntimeClass of the pods, e.g. gvisor or kata."""
    max_sessions: int = Field(8, ge=1, le=256)
    """Sessions (running jobs) in one pod at most; the profile aio has its own limit."""
    execution_timeout_seconds: int = Field(30, ge=1, le=300)
    """Time that one piece of code may run."""
    pod_template: FreeForm | None = None
    """Patch of the pod template, applied last, as for the engine."""


class AutoscalingSpec(Model):
    """A HorizontalPodAutoscaler on CPU and, where it is said, on jobs; the higher number wins."""

    min: int = Field(1, ge=1, le=100)
    """Replicas at least."""
    max: int = Field(ge=1, le=100)
    """Replicas at most."""
    target_cpu_utilization_percentage: int = Field(70, ge=1, le=100, alias="targetCPUUtilizationPercentage")
    """Average CPU use to aim at, in percent of the request."""
    jobs_per_replica: int | None = Field(None, ge=1, le=1024)
    """Running jobs of each pod (`s1vl_jobs_running`) to aim at; needs that metric in the custom metrics API, see
    docs/scaling.md. Absent: CPU only."""


class ServiceSpec(Model):
    """The Service that clients reach."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service."""
    annotations: dict[str, Annotated[str, Field(max_length=1024)]] = Field(default_factory=dict, max_length=32)
    """Annotations of the Service, e.g. for a cloud's load balancer."""


class OrchestratorSpec(Model):
    """The service that clients talk to; it runs the turns between model and sandbox."""

    replicas: int | None = Field(None, ge=0, le=100)
    """Number of pods; not together with `autoscaling`. Absent: 1, or what the autoscaler says."""
    autoscaling: AutoscalingSpec | None = None
    """Let a HorizontalPodAutoscaler choose the number of pods."""
    port: Port = 10044
    """Port of the HTTP API; not 10045, where the operator asks."""
    protocol: Literal["s1vl", "thyme", "deepeyesv2", "pyvision", "tool_call"] | None = None
    """How the model writes code and reads results; docs/protocols.md describes them. Not together with `protocolRef`.
    Absent: s1vl."""
    protocol_ref: ConfigMapKeyRef | None = None
    """ConfigMap with a protocol of your own, at most 64 KiB of YAML; see docs/protocols.md. A change of it is seen at
    once where the ConfigMap has the label `s1vl.io/deployment: <name>`, else within half a minute."""
    max_turns: int = Field(8, ge=1, le=64)
    """Turns of one job at most."""
    deadline_seconds: int = Field(270, ge=5, le=3600)
    """Time for one job; the model card's client gives up after 300."""
    anonymous_tenant: Annotated[str, Field(max_length=40)] = ""
    """Tenant that requests without a key belong to. Empty: a key is required."""
    resources: ResourcesSpec = Field(
        default_factory=lambda: ResourcesSpec(requests={"cpu": "200m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    )
    """Resources of each pod."""
    service: ServiceSpec = Field(default_factory=ServiceSpec)
    """The Service that clients reach."""
    pod_template: FreeForm | None = None
    """Patch of the pod template, applied last, as for the engine."""


class TenantSandboxSpec(Model):
    """What is different in this tenant's sandbox; absent fields are those of `spec.sandbox`."""

    image: Image | None = None
    """Container image."""
    resources: ResourcesSpec | None = None
    """Resources."""
    runtime_class_name: Name | None = None
    """RuntimeClass of the pods."""
    require_isolation: Literal["bestEffort", "strict"] | None = None
    """What happens on a node that cannot confine each session."""
    replicas: int | None = Field(None, ge=1, le=16)
    """Pods."""
    idle_timeout_seconds: int | None = Field(None, ge=0, le=604800)
    """Time without a request after which it has no pods. 0: never."""
    max_sessions: int | None = Field(None, ge=1, le=256)
    """Sessions in one pod at most."""
    pod_template: FreeForm | None = None
    """Patch of the pod template, applied after that of `spec.sandbox`."""


class LimitsSpec(Model):
    """What a tenant may ask for at once; beyond it requests get 429."""

    concurrent_requests: int = Field(4, ge=1, le=1024)
    """Jobs running at once."""
    queued_requests: int = Field(16, ge=0, le=4096)
    """Jobs waiting for their turn."""
    requests_per_minute: int = Field(0, ge=0, le=100000)
    """Requests a minute. 0: no limit."""


class TenantSpec(Model):
    """A group of clients with a folder, a sandbox and a key of its own."""

    name: TenantName
    """Name, unique in the deployment: a DNS label."""
    sub_path: str | None = Field(None, max_length=128)
    """The tenant's folder on the image volume, relative to its root. Absent: the tenant's name. Empty: the root, for a
    single tenant only."""
    api_key_secret_ref: SecretKeyRef | None = None
    """Secret with the tenant's API key, or with several of them, one a line. Absent: the operator creates
    `<deployment>-tenant-<name>` once and never changes it."""
    sandbox: TenantSandboxSpec = Field(default_factory=TenantSandboxSpec)
    """What is different in this tenant's sandbox."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    """What the tenant may ask for at once."""

    @property
    def folder(self) -> str:
        """The tenant's folder, relative to the image volume's root; "" is the root."""
        return self.name if self.sub_path is None else self.sub_path


class NetworkPolicySpec(Model):
    """NetworkPolicies that leave open only what is needed."""

    enabled: bool = True
    """Create them. Without them a sandbox can reach everything that the cluster's network lets it."""
    ingress_from: list[FreeForm] = Field(default_factory=list, max_length=64)
    """NetworkPolicy peers that may reach the orchestrator. Empty: everyone."""
