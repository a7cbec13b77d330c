"""How the operator would start this vLLM, in a folder of this machine instead of a pod."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.vllm import install
from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import engine, paths, vllm
from s1vl_operator.desired.context import Context

MODEL = "ScienceOne-AI/S1-VL-32B"
"""Its name in requests; the custom resource's default."""
CONTEXT_TOKENS = 32_768
IMAGES = 15
DRAIN_SECONDS = 30

_CPU = (
    *("--host", "127.0.0.1"),
    *("--load-format", "dummy"),
    *("--dtype", "float32"),
    "--enforce-eager",
    *("--mm-processor-cache-gb", "1"),
    # The constraint holds from the first token on, thinking included, so that a request can say what is thought.
    *("--structured-outputs-config", '{"enable_in_reasoning": true}'),
)
# GiB; 1,048,576 tokens of the tiny model. `--gpu-memory-utilization` has no effect on a CPU.
_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}

_CONTEXT = Context(
    control_image="s1vl", sandbox_image="s1vl-sandbox", engine_image="vllm/vllm-openai", image_pull_policy="Never",
    operator_namespace="s1vl-system",
)  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """A vLLM to start.

    Attributes:
        words: what follows `vllm`: `serve`, the model's folder, flags.
        environment: variables on top of this process's own.
    """

    words: tuple[str, ...]
    environment: dict[str, str]


def deployment(port: int) -> S1VLDeployment:
    """The custom resource: the model card's values on one "GPU", the weights on a claim."""
    spec = {
        "tenants": [{"name": "chem"}],
        "model": {"source": {"existingClaim": {"name": "weights"}}},
        "engine": {
            "version": install.release(),
            "gpus": 1,
            "maxModelLen": CONTEXT_TOKENS,
            "imagesPerPrompt": IMAGES,
            "gpuMemoryUtilization": "0.3",
            "drainTimeoutSeconds": DRAIN_SECONDS,
            "port": port,
            "extraArgs": list(_CPU),
            "env": [{"name": name, "value": value} for name, value in _ENVIRONMENT.items()],
        },
    }
    manifest = {"apiVersion": "s1vl.io/v1alpha1", "kind": "S1VLDeployment", "spec": spec}
    return S1VLDeployment.model_validate({**manifest, "metadata": {"name": "tiny", "namespace": "default"}})


def launch(port: int, model: Path, media: Path, scratch: Path) -> Launch:
    """The operator's own command line and environment, with the pod's folders moved.

    Args:
        port: of the HTTP API.
        model: the model's folder.
        media: the folder below which `file://` may read.
        scratch: for everything that vLLM writes.
    """
    manifests = engine.manifests(deployment(port), _CONTEXT)
    pod = next(found for found in manifests if found["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    container: dict[str, Any] = pod["containers"][0]
    moved = {vllm.WEIGHTS: model, paths.ROOT: media, engine.CACHE: scratch, "/tmp": scratch}
    return Launch(
        tuple(_move(word, moved) for word in [*container["command"][1:], *container["args"]]),
        {item["name"]: _move(item["value"], moved) for item in container["env"]},
    )


def _move(word: str, folders: dict[str, Path]) -> str:
    for old, new in folders.items():
        if word == old or word.startswith(f"{old}/"):
            return str(new) + word.removeprefix(old)
    return word
