"""What several parts of an S1VLDeployment's spec are made of.

The texts under the fields are the CRD's and the reference's descriptions.
"""

from __future__ import annotations

from pydantic import Field

from s1vl_operator.api.fields import Key, Model, Name, ResourceQuantity


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


class ConfigMapKeyRef(Model):
    """One key of a ConfigMap in the same namespace."""

    name: Name
    """Name of the ConfigMap."""
    key: Key = "protocol.yaml"
    """Key in the ConfigMap; its `data`, not its `binaryData`."""


class TokenSecretRef(Model):
    """One key of a Secret in the same namespace."""

    name: Name
    """Name of the Secret."""
    key: Key = "token"
    """Key in the Secret."""
