"""The status of an S1VLDeployment, as the CRD describes it and the operator writes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s1vl_operator.api.fields import Model


class ConditionStatus(Model):
    """One condition, by the Kubernetes API conventions."""

    type: str = Field(max_length=64)
    """What it speaks about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str = Field(max_length=64)
    """Why, as one word."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, for people."""
    observed_generation: int = 0
    """The generation of the spec that was looked at."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When `status` last changed."""


class TenantStatus(Model):
    """How one tenant is served."""

    name: str = Field(max_length=40)
    """The tenant."""
    ready: bool = False
    """Whether it is served."""
    reason: str = Field("", max_length=64)
    """Why, as one word."""
    message: str = Field("", max_length=32768)
    """Why, for people."""
    url: str = Field("", max_length=512)
    """Where, inside the cluster."""


class S1VLDeploymentStatus(Model):
    """What the operator has seen last."""

    observed_generation: int | None = None
    """The generation of the spec that the rest speaks about."""
    replicas: int | None = None
    """Engine pods that exist; for the scale subresource."""
    selector: str | None = Field(None, max_length=512)
    """What picks the engine's pods; for the scale subresource."""
    engine: str | None = Field(None, max_length=16)
    """Engine pods, ready/wanted."""
    tenants_ready: str | None = Field(None, max_length=16)
    """Tenants, served/all."""
    url: str | None = Field(None, max_length=512)
    """Where clients inside the cluster reach the service."""
    conditions: list[ConditionStatus] | None = Field(None, max_length=16)
    """Ready, EngineReady, OrchestratorReady, SandboxesReady, PathsConsistent and Progressing; for kstatus Reconciling
    or Stalled while one of them is true."""
    tenants: list[TenantStatus] | None = Field(None, max_length=200)
    """Every tenant of the spec."""
