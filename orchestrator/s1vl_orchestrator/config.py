"""The configuration file: what the operator (or a person) tells the orchestrator. Pure models, no file is read here."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from s1vl_orchestrator.forms import Form, FormError, read_yaml
from s1vl_orchestrator.paths import TenantPaths
from s1vl_orchestrator.protocol.profile import load_profile

MAX_DEADLINE_SECONDS = 3600


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names every field at fault."""


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,253}$")]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+(/[^\s]*)?$")]


class SecretRef(Form):
    """One key of one Secret."""

    name: Name
    key: Key


class Deployment(Form):
    """Which S1VLDeployment this is."""

    namespace: str
    name: str


class Engine(Form):
    """The model's server. `media_root` "" means that it sees no files and pictures travel as base64.

    `pods_host` is a DNS name with the address of every pod that takes requests (a headless Service's); their port is
    that of `url`. "" means that `url` alone is known.
    """

    url: Url
    pods_host: str = ""
    model: str = Field(min_length=1)
    max_model_len: int = Field(ge=2048)
    images_per_prompt: int = Field(ge=1)
    media_root: str = ""


class Retention(Form):
    """How long the pictures are kept that jobs made; 0 means without end, or without limit."""

    max_age_seconds: int = Field(default=7 * 24 * 3600, ge=0)
    max_bytes_per_tenant: int = Field(default=0, ge=0)


class Images(Form):
    """Where the image volume is: here (`root`), for clients and in sandboxes."""

    root: str
    client_path: str
    sandbox_path: str
    retention: Retention = Retention()

    @field_validator("root", "client_path", "sandbox_path")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/") or ".." in value.split("/") or "\0" in value or value.strip("/") == "":
            raise ValueError("must be an absolute path without '..', and not '/'")
        return str(PurePosixPath(value))


class Sandbox(Form):
    """What holds for every sandbox. Only s1vl's own takes a session's grants (`readable`); AIO Sandbox has none."""

    profile: Literal["s1vl", "aio"] = "s1vl"
    execution_timeout_seconds: int = Field(default=30, ge=1, le=300)


class Limits(Form):
    """What holds for every job; a request may ask for less."""

    max_turns: int = Field(default=8, ge=1, le=64)
    deadline_seconds: float = Field(default=270, gt=0, le=MAX_DEADLINE_SECONDS)


class TenantLimits(Form):
    """What one tenant may use at once; 0 requests per minute means any number."""

    concurrent_requests: int = Field(default=4, ge=1)
    queued_requests: int = Field(default=16, ge=0)
    requests_per_minute: int = Field(default=0, ge=0)


class TenantSandbox(Form):
    """The tenant's own sandbox. No key means that it asks for none.

    With a `lease` it sleeps when nobody has renewed that for `idle_timeout_seconds`.
    """

    url: Url
    api_key_secret: SecretRef | None = None
    lease: Name | Literal[""] = ""
    idle_timeout_seconds: int = Field(default=0, ge=0)


class Tenant(Form):
    """One tenant: its folder, its key, its sandbox, its limits."""

    name: Name
    sub_path: str
    api_key_secret: SecretRef | None = None
    sandbox: TenantSandbox
    limits: TenantLimits = TenantLimits()

    @field_validator("sub_path")
    @classmethod
    def _relative(cls, value: str) -> str:
        if value.startswith("/") or any(part in ("", ".", "..") for part in value.split("/") if value) or "\0" in value:
            raise ValueError("must be relative, without empty, '.' or '..' components")
        return value


class Config(Form):
    """The whole file."""

    version: Literal[1]
    deployment: Deployment
    engine: Engine
    images: Images
    sandbox: Sandbox = Sandbox()
    limits: Limits = Limits()
    protocol: str = "s1vl"
    anonymous_tenant: str = ""
    cache_salt_secret: SecretRef | None = None
    tenants: tuple[Tenant, ...] = ()

    @field_validator("protocol")
    @classmethod
    def _known_protocol(cls, value: str) -> str:
        load_profile(value)
        return value

    @model_validator(mode="after")
    def _tenants_apart(self) -> Config:
        names = [tenant.name for tenant in self.tenants]
        if len(set(names)) != len(names):
            raise ValueError("two tenants have the same name")
        if self.anonymous_tenant and self.anonymous_tenant not in names:
            raise ValueError(f"anonymousTenant {self.anonymous_tenant!r} is not a tenant")
        folders = [PurePosixPath("/", tenant.sub_path) for tenant in self.tenants]
        for at, folder in enumerate(folders):
            for other in folders[at + 1 :]:
                if folder.is_relative_to(other) or other.is_relative_to(folder):
                    raise ValueError(f"the tenants' folders {folder} and {other} lie in one another")
        return self

    def paths(self, tenant: Tenant) -> TenantPaths:
        """The views of a tenant's folder."""
        return TenantPaths(
            client=PurePosixPath(self.images.client_path),
            sandbox=PurePosixPath(self.images.sandbox_path),
            root=Path(self.images.root),
            sub_path=tenant.sub_path,
            media_root=self.engine.media_root,
        )

    def secret_refs(self) -> set[SecretRef]:
        """Every Secret key that the configuration names."""
        refs = {tenant.api_key_secret for tenant in self.tenants}
        refs |= {tenant.sandbox.api_key_secret for tenant in self.tenants}
        refs.add(self.cache_salt_secret)
        return {ref for ref in refs if ref is not None}


def config_version(text: str) -> str:
    """SHA-256 of the file's text in hex: how the operator sees which configuration is in use."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse_config(text: str) -> Config:
    """Read a configuration.

    Raises:
        ConfigError: If it is not YAML or not of this form.
    """
    try:
        return read_yaml(text, Config, "config")
    except FormError as error:
        raise ConfigError(str(error)) from error
