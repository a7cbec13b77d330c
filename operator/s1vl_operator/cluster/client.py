"""The cluster behind `kubernetes.aio`, dicts in and dicts out.

The library's typed models are left out on purpose: they refuse what the API server takes (an integer as a quantity, a
field newer than the library). Only its transport and its ways to authenticate are used.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config

from s1vl_operator.cluster.kinds import Kind, Manifest, kind_of
from s1vl_operator.cluster.port import (
    FIELD_MANAGER,
    HANDOVER_MANAGER,
    STATUS_MANAGER,
    ApiError,
    NotLeading,
    Unreachable,
)

TIMEOUT = aiohttp.ClientTimeout(total=30, connect=5)
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

Count = Callable[[str, str, int], None]
"""Told (verb, plural, HTTP status) of every request; the status is 0 when there was no answer."""


class KubernetesCluster:
    """See `port.Cluster`. Close it after use."""

    def __init__(
        self,
        api: ApiClient,
        count: Count = lambda _verb, _resource, _status: None,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._api = api
        self._count = count
        self._may_write = may_write

    @classmethod
    async def connect(
        cls, count: Count = lambda _verb, _resource, _status: None, *, kubeconfig: str | None = None
    ) -> KubernetesCluster:
        """A connection with the pod's service account, or, outside a cluster, with a kubeconfig.

        Args:
            count: told of every request.
            kubeconfig: path of the file; absent, the one of the environment or of the user is taken.
        """
        configuration = Configuration()
        if kubeconfig is None and in_cluster():
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        # One worker has up to a dozen lists under way.
        configuration.connection_pool_maxsize = 100
        return cls(ApiClient(configuration=configuration), count)

    def writing_while(self, may_write: Callable[[], bool]) -> KubernetesCluster:
        """The same connections, that send a write only while `may_write` says so, and else raise NotLeading."""
        return KubernetesCluster(self._api, self._count, may_write)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def served(self, api_version: str, plural: str) -> bool:
        """See `port.Cluster`."""
        root = "/apis" if "/" in api_version else "/api"
        try:
            found = await self._request("get", "discovery", "GET", f"{root}/{api_version}")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return any(resource["name"] == plural for resource in found.get("resources", []))

    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """See `port.Cluster`."""
        try:
            return await self._request("get", kind.plural, "GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str, *, labels: str = "", fields: str = "", limit: int = 0
    ) -> list[Manifest]:
        """See `port.Cluster`."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit) if limit else ""}
        found = await self._request(
            "list", kind.plural, "GET", kind.path(namespace), {k: v for k, v in query.items() if v}
        )
        # The items of a list come without what they all share.
        return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in found["items"]]

    async def create(self, manifest: Manifest) -> Manifest:
        """See `port.Cluster`."""
        kind, namespace, _ = _where(manifest)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("create", kind.plural, "POST", kind.path(namespace), query, manifest)

    async def apply(self, manifest: Manifest) -> Manifest:
        """See `port.Cluster`."""
        kind, namespace, name = _where(manifest)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("apply", kind.plural, "PATCH", kind.path(namespace, name), query, manifest, APPLY)

    async def hand_over(self, manifest: Manifest) -> None:
        """See `port.Cluster`."""
        kind, namespace, name = _where(manifest)
        query = {"fieldManager": HANDOVER_MANAGER}
        await self._request("apply", kind.plural, "PATCH", kind.path(namespace, name), query, manifest, APPLY)

    async def merge(self, manifest: Manifest) -> Manifest:
        """See `port.Cluster`."""
        kind, namespace, name = _where(manifest)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("patch", kind.plural, "PATCH", kind.path(namespace, name), query, manifest, MERGE)

    async def replace(self, manifest: Manifest) -> Manifest:
        """See `port.Cluster`."""
        kind, namespace, name = _where(manifest)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("update", kind.plural, "PUT", kind.path(namespace, name), query, manifest)

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str, *, grace: int | None = None, orphan: bool = False
    ) -> None:
        """See `port.Cluster`."""
        policy = "Orphan" if orphan else "Background"
        options: Manifest = {"preconditions": {"uid": uid}, "propagationPolicy": policy}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._request("delete", kind.plural, "DELETE", kind.path(namespace, name), {}, options)
        except ApiError as error:
            if error.status != 404:
                raise

    async def apply_status(self, manifest: Manifest) -> None:
        """See `port.Cluster`."""
        kind, namespace, name = _where(manifest)
        query = {"fieldManager": STATUS_MANAGER, "force": "true"}
        path = kind.path(namespace, name, "status")
        await self._request("apply", f"{kind.plural}/status", "PATCH", path, query, manifest, APPLY)

    async def _request(  # noqa: PLR0917 (private, and the order is that of a request)
        self,
        verb: str,
        resource: str,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        if method != "GET" and not self._may_write():
            raise NotLeading(f"{method} {path}")
        status = 0
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=[*(query or {}).items()],
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(*request, _request_timeout=TIMEOUT)
            status = response.status
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error
        finally:
            self._count(verb, resource, status)
        if status >= 300:
            raise _refusal(status, text)
        answer: Manifest = json.loads(text)
        return answer


def in_cluster() -> bool:
    """Whether this process runs in a pod with a service account, and nobody points it elsewhere."""
    token = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    return "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ and token.exists()


def _where(manifest: Manifest) -> tuple[Kind, str, str]:
    metadata: dict[str, Any] = manifest["metadata"]
    return kind_of(manifest), metadata["namespace"], metadata.get("name", "")


def _refusal(status: int, text: bytes) -> ApiError:
    try:
        answer = json.loads(text)
        return ApiError(status, answer.get("reason") or "", answer.get("message") or "no message")
    except (ValueError, AttributeError):
        # What stands between us and the API server answers in its own way.
        return ApiError(status, "", text[:300].decode(errors="replace").strip() or "no message")
