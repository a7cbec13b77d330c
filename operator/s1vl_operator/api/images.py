"""`spec.images`: the image volume, its paths, and how long pictures are kept.

The texts under the fields are the CRD's and the reference's descriptions.
"""

from __future__ import annotations

from pydantic import Field

from s1vl_operator.api.fields import Model, Name, Path, Quantity


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


class RetentionSpec(Model):
    """How long pictures are kept that jobs made; pictures that clients put there are never touched."""

    days: int = Field(7, ge=0, le=36500)
    """Days after which they are removed. 0: never."""
    size_per_tenant: Quantity | None = None
    """Size of what each tenant's jobs made beyond which the oldest are removed, at least 1Mi. Absent: no limit."""


class ImagesSpec(Model):
    """One volume with every tenant's pictures, and the paths by which clients and sandboxes name them."""

    client_path: Path = "/data/images"
    """Prefix by which clients name a picture (`image_path_list`). Nothing is mounted there."""
    sandbox_path: Path = "/mnt/data/images"
    """Where the code in a tenant's sandbox sees the tenant's folder."""
    volume: VolumeSpec = Field(default_factory=lambda: VolumeSpec(size="100Gi"))
    """The volume."""
    retention: RetentionSpec = Field(default_factory=RetentionSpec)
    """How long pictures are kept that jobs made."""
