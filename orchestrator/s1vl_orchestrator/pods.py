"""`pods.yaml`, the file beside the configuration: which pods there are now. Pure models, no file is read here.

It is apart from the configuration because it changes by itself, and what it says needs no more than to be followed.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from pydantic import field_validator

from s1vl_orchestrator.config import ConfigError
from s1vl_orchestrator.forms import Form, FormError, read_yaml


class ListedPod(Form):
    """A pod that has an address and is not being deleted. IPv6 addresses have no brackets."""

    name: str
    address: str

    @field_validator("address")
    @classmethod
    def _ip(cls, value: str) -> str:
        ip_address(value)
        return value


class EngineList(Form):
    """`hung` are addresses of engine pods that were seen to compute nothing: they get no requests."""

    hung: tuple[str, ...] = ()


class Pods(Form):
    """The whole file. `sandboxes` has every tenant; one whose sandbox sleeps has no pod."""

    version: Literal[1]
    engine: EngineList = EngineList()
    sandboxes: dict[str, tuple[ListedPod, ...]]


@lru_cache(maxsize=1)
def parse_pods(text: str) -> Pods:
    """Read the file; the same text, which comes again with every poll, is read once.

    Raises:
        ConfigError: If it is not YAML or not of this form.
    """
    try:
        return read_yaml(text, Pods, "pods.yaml")
    except FormError as error:
        raise ConfigError(f"pods.yaml: {error}") from error
