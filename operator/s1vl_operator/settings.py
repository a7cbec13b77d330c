"""Settings of the operator process, from the environment (prefix `S1VL_OPERATOR_`)."""

from __future__ import annotations

import socket
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What the operator is told by its Deployment; every field is an environment variable."""

    model_config = SettingsConfigDict(env_prefix="S1VL_OPERATOR_")

    image: str = "s1vl:0.1.0"
    """Image of the orchestrators."""
    sandbox_image: str = "s1vl-sandbox:0.1.0"
    """Image of the sandboxes, where an S1VLDeployment names none."""
    engine_image: str = "vllm/vllm-openai:v0.11.2"
    """Image of the engines, where an S1VLDeployment names none."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """For every container that the operator creates."""
    namespace: str = "default"
    """The operator's own namespace: of its Lease, and let in by NetworkPolicies."""
    watch_namespaces: str = ""
    """Namespaces to look after, separated by commas. Empty: all."""
    lease_name: str = "s1vl-operator"
    """Name of the Lease that decides which replica leads."""
    http_port: int = Field(8081, ge=0, le=65535)
    """Port of /healthz, /readyz and /metrics. 0: any free one, which is logged."""
    pod_name: str = Field(default_factory=socket.gethostname)
    """Who holds the Lease and reports events."""
    log_format: Literal["json", "text"] = "json"
    """Form of the log lines on stderr."""
    workers: int = Field(8, ge=1, le=64)
    """S1VLDeployments that are reconciled at once."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces to look after; empty for all of them."""
        return tuple(name for name in (part.strip() for part in self.watch_namespaces.split(",")) if name)
