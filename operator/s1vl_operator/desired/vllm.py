"""vLLM's command line, by version: the model card's flags in the form that each version takes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from s1vl_operator.api.v1alpha1 import S1VLDeployment
from s1vl_operator.desired import paths
from s1vl_operator.desired.context import Context

Version = tuple[int, int, int]

LOWEST: Version = (0, 11, 0)
"""The first version that can load the model; its flags are taken by every later one."""

WEIGHTS = "/weights"
"""Where a claim with weights is mounted."""


@dataclass(frozen=True)
class Flag:
    """One part of the command line.

    Attributes:
        since: first version that takes it.
        render: its words for a deployment; none when it is not wanted.
    """

    since: Version
    render: Callable[[S1VLDeployment], list[str]]


FLAGS = (
    Flag(LOWEST, lambda d: ["--served-model-name", served_name(d)]),
    Flag(LOWEST, lambda d: _revision(d)),  # noqa: PLW0108 (defined below)
    Flag(LOWEST, lambda d: ["--tensor-parallel-size", str(d.spec.engine.gpus)]),
    Flag(LOWEST, lambda d: ["--max-model-len", str(d.spec.engine.max_model_len)]),
    # The card's `image=15` is refused by every version that can load the model; without a limit on videos the engine
    # reserves memory for them.
    Flag(LOWEST, lambda d: ["--limit-mm-per-prompt", _limit(d)]),
    Flag(LOWEST, lambda d: ["--reasoning-parser", d.spec.engine.reasoning_parser]),
    Flag(
        LOWEST, lambda d: ["--enable-prefix-caching" if d.spec.engine.prefix_caching else "--no-enable-prefix-caching"]
    ),
    Flag(LOWEST, lambda d: ["--gpu-memory-utilization", d.spec.engine.gpu_memory_utilization]),
    Flag(LOWEST, lambda d: ["--port", str(d.spec.engine.port)]),
    Flag(LOWEST, lambda d: ["--allowed-local-media-path", paths.table(d).media_root]),
    Flag((0, 18, 0), lambda d: ["--shutdown-timeout", str(d.spec.engine.drain_timeout_seconds)]),
)


def served_name(deployment: S1VLDeployment) -> str:
    """The model's name in the API."""
    return deployment.spec.model.served_name or deployment.spec.model.name


def image(deployment: S1VLDeployment, context: Context) -> str:
    """The engine's image: the spec's own, or the operator's with the spec's version as its tag."""
    engine = deployment.spec.engine
    if engine.image:
        return engine.image
    return f"{_repository(context.engine_image)}:v{engine.version}" if engine.version else context.engine_image


def version(deployment: S1VLDeployment, context: Context) -> Version:
    """The vLLM version that flags are chosen for.

    It is the spec's, else that of the image's tag. A tag that is no version, or one of something else than vLLM (below
    `LOWEST`), means `LOWEST`: a flag that is missing costs a feature, one too many keeps the engine from starting.
    """
    tag = image(deployment, context).partition("@")[0].rpartition("/")[2].partition(":")[2]
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", deployment.spec.engine.version or tag)
    if not found:
        return LOWEST
    return max(LOWEST, (int(found[1]), int(found[2]), int(found[3])))


def command(deployment: S1VLDeployment) -> list[str]:
    """The container's command; said in full because the image's entrypoint differs between versions."""
    claim = deployment.spec.model.source.existing_claim
    folder = f"{WEIGHTS}/{claim.path}".rstrip("/") if claim else deployment.spec.model.name
    return ["vllm", "serve", folder]


def args(deployment: S1VLDeployment, context: Context) -> list[str]:
    """The container's arguments; the user's come last, because for vLLM the last one wins."""
    known = version(deployment, context)
    own = [word for flag in FLAGS if flag.since <= known for word in flag.render(deployment)]
    return own + deployment.spec.engine.extra_args


def _limit(deployment: S1VLDeployment) -> str:
    return json.dumps({"image": deployment.spec.engine.images_per_prompt, "video": 0}, separators=(",", ":"))


def _revision(deployment: S1VLDeployment) -> list[str]:
    source = deployment.spec.model.source.hugging_face
    return ["--revision", source.revision] if source and source.revision else []


def _repository(reference: str) -> str:
    """An image reference without tag and digest; a colon before the last slash is a registry's port."""
    head, slash, last = reference.partition("@")[0].rpartition("/")
    return head + slash + last.partition(":")[0]
