"""What changed between vLLM's versions, in one table, so that one simulator can stand for any of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

DEFAULT_VERSION = "0.32.0"
VERSION_VARIABLE = "VLLM_SIM_VERSION"

Release = tuple[int, int, int]


@dataclass(frozen=True)
class Behaviour:
    """How the simulated version differs from others.

    Attributes:
        version: the version as `vllm --version` prints it.
        release: the same as three numbers.
        field_reasoning: answers carry `reasoning`.
        field_reasoning_content: answers carry `reasoning_content`.
        cuts_max_tokens: a prompt plus `max_tokens` over the context is cut short rather than refused with 400.
        counts_reasoning: `usage` has `completion_tokens_details.reasoning_tokens`.
    """

    version: str
    release: Release
    field_reasoning: bool
    field_reasoning_content: bool
    cuts_max_tokens: bool
    counts_reasoning: bool


def parse_release(version: str) -> Release:
    """Return the three numbers of a version such as `0.11.2` or `v0.32.0+cpu`.

    Raises:
        ValueError: when it does not begin with two or three numbers.
    """
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    if not match:
        raise ValueError(f"{VERSION_VARIABLE}={version!r} is not a version like {DEFAULT_VERSION}")
    return int(match[1]), int(match[2]), int(match[3] or 0)


def behaviour_of(version: str) -> Behaviour:
    """Return the differences of one version; raises ValueError when it cannot be read.

    When `max_tokens` began to be cut instead of refused is not known to the release; it was refused in all of the
    reports from before 0.30 and is cut in 0.32.
    """
    release = parse_release(version)
    return Behaviour(
        version=version.removeprefix("v"),
        release=release,
        field_reasoning=release >= (0, 11, 1),
        field_reasoning_content=release < (0, 16, 0),
        cuts_max_tokens=release >= (0, 30, 0),
        counts_reasoning=release >= (0, 16, 0),
    )


def simulated_version() -> str:
    """Return the version to stand for: VLLM_SIM_VERSION, else the one whose behaviour was measured."""
    return os.environ.get(VERSION_VARIABLE) or DEFAULT_VERSION
