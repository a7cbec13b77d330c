"""The parts of an S1VLDeployment's spec. The texts under the fields are the CRD's and the reference's descriptions.

The defaults are the model card's values, so that a spec with nothing but one tenant is the card's set-up.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s1vl_operator.api.fields import (
    FreeForm,
    Image,
    Key,
    Model,
    Name,
    Path,
    Port,
    Quantity,
    ResourceName,
    ResourceQuantity,
    TenantName,
)


class ResourcesSpec(Model):
    """Compute resources of a container, as in a Pod."""

    requests: dict[str, ResourceQuantity] | None = Field(None, max_length=16)
    """What is reserved for the container."""
    limits: dict[str, ResourceQuantity] | None = Field(None, max_length=16)
    """What the container never gets more of."""


class SecretKeyRef(Model):
    """One key of a Secret in the same namespace."""

    name: Name
    """Name of the Secret."""
    key: Key = "apiKey"
    """Key in the Secret."""


class TokenSecretRef(Model):
    """One key of a Secret in the same namespace."""

    name: Name
    """Name of the Secret."""
    key: Key = "token"
    """Key in the Secret."""


class HuggingFaceSource(Model):
    """Weights downloaded from Hugging Face into the model cache when an engine pod first starts."""

    revision: str | None = Field(None, min_length=1, max_length=128)
    """Branch, tag or commit. Absent: the repository's default branch."""
    token_secret_ref: TokenSecretRef | None = None
    """Secret with an access token, for gated or private repositories."""


class ExistingClaimSource(Model):
    """Weights that are already on a PersistentVolumeClaim; nothing is downloaded."""

    name: Name
    """Name of the claim; mounted read-only."""
    path: str = Field("", max_length=256)
    """Folder of the weights on the claim, relative to its root. Empty: the root."""


class ModelSource(Model):
    """Where the weights come from: exactly one of the fields."""

    hugging_face: HuggingFaceSource | None = None
    """Download from Hugging Face."""
    existing_claim: ExistingClaimSource | None = None
    """Read from a claim."""


class CacheSpec(Model):
    """The claim that keeps downloaded weights and compiled kernels: exactly one of existingClaim and size."""

    existing_claim: Name | None = None
    """Use this claim. With more than one engine replica it must be ReadWriteMany."""
    size: Quantity | None = None
    """Create a claim of this size, ReadWriteMany. It may grow, never shrink, and outlives the S1VLDeployment."""
    storage_class_name: Name | None = None
    """Storage class of the created claim. Absent: the cluster's default class."""


class ModelSpec(Model):
    """The model to serve."""

    name: str = Field("ScienceOne-AI/S1-VL-32B", min_length=1, max_length=256, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    """Hugging Face repository of the model."""
    served_name: str | None = Field(None, min_length=1, max_length=256)
    """Name of the model in the API. Absent: the same as `name`."""
    source: ModelSource = Field(default_factory=lambda: ModelSource(hugging_face=HuggingFaceSource()))
    """Where the weights come from."""
    cache: CacheSpec = Field(default_factory=lambda: CacheSpec(size="200Gi"))
    """Claim for downloaded weights and compiled kernels."""


class EngineSpec(Model):
    """vLLM. The defaults are the model card's flags, in the form that vLLM takes."""

    image: Image | None = None
    """Container image. Absent: the operator's default engine image, with `version` as its tag where that is set."""
    version: str | None = Field(None, max_length=32)
    """vLLM version, which decides the flags. Absent: read from the image's tag; where that is no version, the flags of
    0.11.0, which every later version takes."""
    replicas: int = Field(1, ge=0, le=64)
    """Number of engine pods; also the scale subresource."""
    gpus: Literal[1, 2, 4, 8] = 4
    """GPUs of each pod, and the tensor parallel size."""
    gpu_resource: ResourceName = "nvidia.com/gpu"
    """Name of the resource that GPUs are asked for by."""
    max_model_len: int = Field(32768, ge=2048, le=262144)
    """Context length in tokens, prompt and answer together."""
    images_per_prompt: int = Field(15, ge=1, le=64)
    """Images in one prompt at most, over the whole history."""
    reasoning_parser: str = Field("deepseek_r1", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    """vLLM's parser of the thinking."""
    prefix_caching: bool = True
    """Reuse the computed prefix of earlier turns."""
    gpu_memory_utilization: str = Field("0.95", max_length=8, pattern=r"^(0\.[0-9]*[1-9][0-9]*|1(\.0+)?)$")
    """Share of each GPU's memory that vLLM takes; a string."""
    port: Port = 9200
    """Port of the engine's HTTP API."""
    shm_size: Quantity = "20Gi"
    """Size of /dev/shm, in memory, when gpus is more than 1."""
    extra_args: list[Annotated[str, Field(min_length=1, max_length=1024)]] = Field(default_factory=list, max_length=64)
    """More arguments, after the operator's own, so that they win."""
    env: list[FreeForm] = Field(default_factory=list, max_length=64)
    """More environment variables, as in a Pod; they win over the operator's own."""
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    """CPU, memory and other resources of the container; the GPUs are added."""
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(default_factory=dict, max_length=32)
    """Labels of the nodes to run on."""
    tolerations: list[FreeForm] = Field(default_factory=list, max_length=32)
    """Tolerations, as in a Pod."""
    affinity: FreeForm | None = None
    """Affinity, as in a Pod."""
    startup_timeout_seconds: int = Field(3600, ge=10, le=86400)
    """Time from the container's start to a healthy engine; includes the download. Later it is restarted."""
    drain_timeout_seconds: int = Field(300, ge=0, le=86400)
    """Time that running requests get to finish when a pod is stopped."""
    stall_timeout_seconds: int = Field(120, ge=10, le=86400)
    """An engine that has requests and computes no token for so long is restarted."""
    pod_template: FreeForm | None = None
    """Patch of the pod template ({metadata, spec}), applied last: objects are merged, named lists by their key, other
    lists replaced."""


class VolumeSpec(Model):
    """The image volume: exactly one of existingClaim, hostPath and size."""

    existing_claim: Name | None = None
    """Use this ReadWriteMany claim."""
    host_path: Path | None = None
    """A folder of the node, for a single node: every pod must land on it. Its folders are prepared by a root init
    container, which Pod Security `restricted` refuses."""
    size: Quantity | None = None
    """Create a ReadWriteMany claim of this size. It may grow, never shrink, and outlives the S1VLDeployment."""
    storage_class_name: Name | None = None
    """Storage class of the created claim, one that offers ReadWriteMany. Absent: the cluster's default class."""


class ImagesSpec(Model):
    """One volume with every tenant's pictures, and the paths by which clients and sandboxes name them."""

    client_path: Path = "/data/images"
    """Prefix by which clients name a picture (`image_path_list`). Nothing is mounted there."""
    sandbox_path: Path = "/mnt/data/images"
    """Where the code in a tenant's sandbox sees the tenant's folder."""
    volume: VolumeSpec = Field(default_factory=lambda: VolumeSpec(size="100Gi"))
    """The volume."""


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
    """Sessions (running jobs) in one sandbox at most; the profile aio has its own limit."""
    execution_timeout_seconds: int = Field(30, ge=1, le=300)
    """Time that one piece of code may run."""
    pod_template: FreeForm | None = None
    """Patch of the pod template, applied last, as for the engine."""


class AutoscalingSpec(Model):
    """A HorizontalPodAutoscaler on CPU."""

    min: int = Field(1, ge=1, le=100)
    """Replicas at least."""
    max: int = Field(ge=1, le=100)
    """Replicas at most."""
    target_cpu_utilization_percentage: int = Field(70, ge=1, le=100, alias="targetCPUUtilizationPercentage")
    """Average CPU use to aim at, in percent of the request."""


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
    protocol: Literal["s1vl", "thyme", "deepeyesv2", "pyvision", "tool_call"] = "s1vl"
    """How the model writes code and reads results; docs/protocols.md describes them."""
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
    """RuntimeClass of the pod."""
    require_isolation: Literal["bestEffort", "strict"] | None = None
    """What happens on a node that cannot confine each session."""
    max_sessions: int | None = Field(None, ge=1, le=256)
    """Sessions at most."""
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
    """Secret with the tenant's API key. Absent: the operator creates `<deployment>-tenant-<name>` once and never
    changes it."""
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
