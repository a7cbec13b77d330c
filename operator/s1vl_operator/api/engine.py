"""`spec.model` and `spec.engine`: the weights, and vLLM.

The texts under the fields are the CRD's and the reference's descriptions.
The defaults are the model card's values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s1vl_operator.api.fields import FreeForm, Image, Model, Name, Port, Quantity, ResourceName
from s1vl_operator.api.shared import ResourcesSpec, TokenSecretRef


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


class EngineAutoscalingSpec(Model):
    """An autoscaler of the engine; it sets `spec.engine.replicas`. With both targets the higher number wins."""

    provider: Literal["hpa", "keda"] = "hpa"
    """Who scales: hpa is a HorizontalPodAutoscaler, which needs vLLM's metrics in the custom metrics API (Prometheus
    adapter); keda is KEDA's ScaledObject, which asks Prometheus itself. See docs/scaling.md."""
    min: int = Field(1, ge=1, le=64)
    """Replicas at least."""
    max: int = Field(ge=1, le=64)
    """Replicas at most."""
    waiting_requests_per_replica: int | None = Field(None, ge=1, le=10000)
    """Requests waiting in each engine (`vllm:num_requests_waiting`) to aim at."""
    running_requests_per_replica: int | None = Field(None, ge=1, le=10000)
    """Requests computed by each engine (`vllm:num_requests_running`) to aim at."""
    prometheus_address: str | None = Field(None, max_length=512, pattern=r"^https?://[^ ]+$")
    """URL of the Prometheus server that KEDA asks, e.g. http://prometheus.monitoring:9090."""


class EngineSpec(Model):
    """vLLM. The defaults are the model card's flags, in the form that vLLM takes."""

    image: Image | None = None
    """Container image. Absent: the operator's default engine image, with `version` as its tag where that is set."""
    version: str | None = Field(None, max_length=32)
    """vLLM version, which decides the flags. Absent: read from the image's tag; where that is no version, the flags of
    0.11.0, which every later version takes."""
    replicas: int = Field(1, ge=0, le=64)
    """Number of engine pods; also the scale subresource. 0 switches `autoscaling` off as well."""
    autoscaling: EngineAutoscalingSpec | None = None
    """Let an autoscaler choose the number of pods: then leave `replicas` out of what you apply."""
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
