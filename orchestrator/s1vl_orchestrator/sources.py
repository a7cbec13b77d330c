"""Where the configuration and the secrets come from: a file and a folder, or the Kubernetes API."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import httpx

from s1vl_orchestrator.config import Config, ConfigError, SecretRef, config_version, parse_config
from s1vl_orchestrator.pods import ListedPod, Pods, parse_pods

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
POLLS_PER_SECRET = 10
CONFIG_KEY, PODS_KEY = "config.yaml", "pods.yaml"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class SourceError(Exception):
    """The source could not be read (now)."""


class ForbiddenError(SourceError):
    """The API server refuses us this object."""


@dataclass(frozen=True)
class Texts:
    """`config.yaml`, and `pods.yaml` where there is one."""

    config: str
    pods: str | None


class Source(Protocol):
    """A place to read from, again and again.

    Reading by name every few seconds needs no right to list or watch, and an outage of the API server changes
    nothing: what was read last stays in use.
    """

    async def texts(self) -> Texts:
        """The configuration and what is beside it. Raises SourceError."""

    async def secret(self, ref: SecretRef) -> bytes | None:
        """A secret's value, None when it does not exist. Raises SourceError."""

    async def renew_lease(self, name: str) -> None:
        """Renew a Lease, in our name and as of now. Raises SourceError."""

    async def close(self) -> None:
        """Give up connections."""


class FileSource:
    """`--config FILE --secrets-dir DIR`, with each key in `DIR/<name>/<key>`; `pods.yaml` may lie beside FILE."""

    def __init__(self, config_file: Path, secrets_dir: Path) -> None:
        self._config_file = config_file
        self._secrets_dir = secrets_dir

    async def texts(self) -> Texts:
        """Read the files."""
        try:
            return await asyncio.to_thread(self._read)
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"cannot read {self._config_file}: {error}") from error

    def _read(self) -> Texts:
        pods = self._config_file.with_name(PODS_KEY)
        return Texts(self._config_file.read_text(), pods.read_text() if pods.exists() else None)

    async def secret(self, ref: SecretRef) -> bytes | None:
        """Read one key's file; a final line break is not part of a key."""
        try:
            return (await asyncio.to_thread((self._secrets_dir / ref.name / ref.key).read_bytes)).rstrip(b"\r\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(f"cannot read the secret {ref.name}/{ref.key}: {error}") from error

    async def renew_lease(self, name: str) -> None:
        """Nobody is there who would have a sandbox sleep."""

    async def close(self) -> None:
        """Nothing to give up."""


class KubernetesSource:
    """`--configmap NAMESPACE/NAME`: two keys of the ConfigMap, and Secrets by name, with the pod's account."""

    def __init__(
        self, namespace: str, name: str, http: httpx.AsyncClient | None = None, token: Path | None = None
    ) -> None:
        self._namespace = namespace
        self._name = name
        self._token = token or SERVICE_ACCOUNT / "token"
        self._http = http or _in_cluster_client()

    async def texts(self) -> Texts:
        """Get the ConfigMap."""
        data = ((await self._get("configmaps", self._name)) or {}).get("data") or {}
        if CONFIG_KEY not in data:
            raise SourceError(f"the ConfigMap {self._namespace}/{self._name} has no key {CONFIG_KEY}")
        return Texts(data[CONFIG_KEY], data.get(PODS_KEY))

    async def secret(self, ref: SecretRef) -> bytes | None:
        """Get a Secret and take one key of it."""
        try:
            found = await self._get("secrets", ref.name)
        except ForbiddenError as error:
            # A right that is not there (yet) must not hold up the other tenants.
            log.warning("%s", error)
            return None
        value = ((found or {}).get("data") or {}).get(ref.key)
        return base64.b64decode(value) if value else None

    async def renew_lease(self, name: str) -> None:
        """Patch the Lease."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        patch = {"spec": {"holderIdentity": socket.gethostname(), "renewTime": now}}
        if await self._ask("PATCH", "/apis/coordination.k8s.io/v1", "leases", name, patch) is None:
            raise SourceError(f"there is no leases/{name}")

    async def close(self) -> None:
        """Close connections to the API server."""
        await self._http.aclose()

    async def _get(self, resource: str, name: str) -> dict[str, dict[str, str]] | None:
        return await self._ask("GET", "/api/v1", resource, name)

    async def _ask(
        self, method: str, api: str, resource: str, name: str, patch: dict[str, Any] | None = None
    ) -> dict[str, dict[str, str]] | None:
        what = f"{method.lower()} {resource}/{name}"
        url = f"{api}/namespaces/{self._namespace}/{resource}/{name}"
        content = None if patch is None else json.dumps(patch)
        headers = {"Content-Type": "application/merge-patch+json"} if patch else {}
        try:
            # The kubelet renews the token in place: read it every time.
            token = (await asyncio.to_thread(self._token.read_text)).strip()
            headers["Authorization"] = f"Bearer {token}"
            answer = await self._http.request(method, url, content=content, headers=headers)
        except (OSError, httpx.HTTPError) as error:
            raise SourceError(f"cannot {what}: {type(error).__name__}: {error}") from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise ForbiddenError(f"not allowed to {what}")
        if answer.status_code != httpx.codes.OK:
            raise SourceError(f"cannot {what}: the API server answered {answer.status_code}")
        body: dict[str, dict[str, str]] = answer.json()
        return body


def _in_cluster_client() -> httpx.AsyncClient:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise SourceError("--configmap needs a pod: KUBERNETES_SERVICE_HOST is not set")
    import ssl  # noqa: PLC0415 - only needed here

    context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
    address = f"[{host}]" if ":" in host else host
    return httpx.AsyncClient(base_url=f"https://{address}:{port}", verify=context, timeout=10, trust_env=False)


@dataclass(frozen=True)
class Snapshot:
    """A valid configuration with its secrets, and the pods there are. `version` is the SHA-256 of its text."""

    config: Config
    version: str
    pods: Pods | None
    secrets: Mapping[SecretRef, bytes] = field(repr=False)

    def secret(self, ref: SecretRef | None) -> bytes | None:
        """A secret's value; None for no reference or a Secret that does not exist (yet)."""
        return self.secrets.get(ref) if ref else None

    @property
    def hung(self) -> tuple[str, ...]:
        """Addresses of the engine's pods that hang."""
        return self.pods.engine.hung if self.pods else ()

    def listing(self, tenant: str) -> tuple[ListedPod, ...] | None:
        """The pods of a tenant's sandbox; None where nobody lists them."""
        return None if self.pods is None else self.pods.sandboxes.get(tenant)


async def read_snapshot(
    source: Source,
    last: Snapshot | None = None,
    *,
    all_secrets: bool = True,
    doubtful: Collection[SecretRef] = (),
) -> Snapshot:
    """Read everything once.

    Args:
        source: Where from.
        last: What was read before; its secrets are kept unless `all_secrets`, only missing ones are asked for.
        all_secrets: Ask for every secret: they change seldom, and with many tenants they are many requests.
        doubtful: Secrets to ask for in any case.

    Raises:
        SourceError: If something could not be read.
        ConfigError: If the configuration is not valid.
    """
    texts = await source.texts()
    version = config_version(texts.config)
    config = last.config if last and last.version == version else parse_config(texts.config)
    pods = None if texts.pods is None else parse_pods(texts.pods)
    known = {} if last is None or all_secrets else last.secrets
    secrets: dict[SecretRef, bytes] = {}
    for ref in sorted(config.secret_refs(), key=lambda ref: (ref.name, ref.key)):
        value = (None if ref in doubtful else known.get(ref)) or await source.secret(ref)
        if value:
            secrets[ref] = value
    return Snapshot(config, version, pods, secrets)


__all__ = ["ConfigError", "FileSource", "KubernetesSource", "Snapshot", "Source", "SourceError", "read_snapshot"]
