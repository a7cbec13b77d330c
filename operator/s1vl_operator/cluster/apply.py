"""Brings a deployment's objects to what is desired: makes missing Secrets, applies what differs, removes the rest."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from s1vl_operator.cluster.compare import closed, difference, grown, hash_of, with_hash
from s1vl_operator.cluster.handover import left_replicas
from s1vl_operator.cluster.kinds import CLAIM, SECRET, Kind, Manifest, kind_of
from s1vl_operator.cluster.outcome import Failure, Obstacle, Result
from s1vl_operator.cluster.ownership import foreign, owned
from s1vl_operator.cluster.port import ApiError, Cluster
from s1vl_operator.cluster.replacement import make_way, replaceable
from s1vl_operator.desired import SecretTemplate

logger = logging.getLogger(__name__)

RETRY_REFUSED_SECONDS = 60.0
RETRY_FAILED_SECONDS = 15.0
"""An object that the API server refused, or failed on (which it also does on a manifest that is wrong), is not sent
again for so long, unless it or the manifest changes."""

REPLACE_AGAIN_SECONDS = 600.0
"""An object is replaced no sooner than so long after the last time: something else may keep making it as it was."""

_RACES = frozenset({409, 429})

Key = tuple[str, str, str]
"""(kind, namespace, name)."""


@dataclass(frozen=True)
class _Refusal:
    state: str
    until: float
    failure: Failure


class Applier:
    """Applies manifests and remembers only what saves requests; a new one starts from the cluster alone.

    Args:
        cluster: where to.
        now: a monotonic clock in seconds.
    """

    def __init__(self, cluster: Cluster, now: Callable[[], float]) -> None:
        self._cluster = cluster
        self._now = now
        self._refusals: dict[Key, _Refusal] = {}
        self._replaced: dict[Key, float] = {}
        self._settled: dict[Key, str] = {}
        """State in which an object came back from its apply and still differed: the server has its own idea of it."""

    def forget(self, namespace: str, names: Iterable[tuple[str, str]]) -> None:
        """Drop what is remembered of objects, given as (kind, name), that are gone for good."""
        for kind, name in names:
            self._refusals.pop((kind, namespace, name), None)
            self._settled.pop((kind, namespace, name), None)
            self._replaced.pop((kind, namespace, name), None)

    async def make_secrets(self, templates: Iterable[SecretTemplate], owner: str) -> Result:
        """Create the Secrets that are missing. One that exists is left as it is, if it is the owner's.

        Args:
            templates: what must exist.
            owner: uid of the custom resource.
        """
        result = Result()
        wanted = list(templates)
        reads = (self._cluster.read(SECRET, one.manifest["metadata"]["namespace"], one.name) for one in wanted)
        for template, found in zip(wanted, await asyncio.gather(*reads), strict=True):
            if found is None:
                try:
                    result.objects["Secret", template.name] = await self._cluster.create(filled(template))
                except ApiError as error:
                    if error.status in _RACES:
                        raise
                    result.failures.append(Failure("Secret", template.name, Obstacle.REFUSED, error.message))
                else:
                    result.created.append(f"Secret/{template.name}")
                continue
            result.objects["Secret", template.name] = found
            if obstacle := foreign(found, template.manifest, owner):
                result.failures.append(obstacle)
        return result

    async def apply(
        self, manifests: Iterable[Manifest], observed: dict[tuple[str, str], Manifest], owner: str
    ) -> Result:
        """Apply every manifest that the cluster does not already agree with, each by itself, in their order.

        Args:
            manifests: the desired state.
            observed: what is there and carries the deployment's label, by (kind, name).
            owner: uid of the custom resource.

        Raises:
            ApiError: somebody else wrote at the same time, or the API server is overloaded; the rest was not tried.
            Unreachable: likewise.
        """
        result = Result()
        for manifest in manifests:
            name = manifest["metadata"]["name"]
            found = observed.get((manifest["kind"], name))
            if found is None:
                # Without our label it is not in the list, but a forced apply would still take it over.
                found = await self._cluster.read(kind_of(manifest), manifest["metadata"]["namespace"], name)
            await self._apply_one(manifest, found, owner, result)
        return result

    async def _apply_one(self, manifest: Manifest, found: Manifest | None, owner: str, result: Result) -> None:
        wanted = grown(with_hash(closed(manifest)), found)
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        key: Key = (kind, manifest["metadata"]["namespace"], name)
        if found is not None:
            result.objects[kind, name] = found
            if obstacle := foreign(found, manifest, owner):
                result.failures.append(obstacle)
                return
            at = difference(wanted, found)
            if not at or self._settled.get(key) == _state(found):
                return
            logger.info("%s %s/%s differs at %s", kind, key[1], name, at)
        state = hash_of(wanted) + (_state(found) if found else "")
        refusal = self._refusals.get(key)
        if refusal and refusal.state == state and self._now() < refusal.until:
            result.failures.append(refusal.failure)
            return
        try:
            applied = await self._bring(wanted, found, key, result)
        except ApiError as error:
            if error.status in _RACES:
                raise
            failure = Failure(kind, name, _obstacle(error), error.message)
            result.failures.append(failure)
            wait = RETRY_FAILED_SECONDS if error.status >= 500 else RETRY_REFUSED_SECONDS
            self._refusals[key] = _Refusal(state, self._now() + wait, failure)
            return
        self._refusals.pop(key, None)
        if applied is None:
            message = "it cannot be changed in place and is replaced; waiting for it to be gone"
            result.failures.append(Failure(kind, name, Obstacle.GOING, message))
            return
        result.objects[kind, name] = applied
        (result.changed if found else result.created).append(f"{kind}/{name}")
        if at := difference(wanted, applied):
            self._settled[key] = _state(applied)
            logger.warning("%s %s/%s is stored with another value at %s than was applied", kind, key[1], name, at)
        else:
            self._settled.pop(key, None)

    async def _bring(self, wanted: Manifest, found: Manifest | None, key: Key, result: Result) -> Manifest | None:
        """Send a manifest, and replace the object where nothing else helps; None while the old one is still going."""
        try:
            return await self._send(wanted, found)
        except ApiError as error:
            replaced = self._replaced.get(key)
            lately = replaced is not None and self._now() < replaced + REPLACE_AGAIN_SECONDS
            if found is None or _obstacle(error) is not Obstacle.IMMUTABLE or lately or not replaceable(wanted, found):
                raise
            logger.warning("%s %s/%s is replaced: %s", *key, error.message)
        gone = await make_way(self._cluster, wanted, found)
        self._replaced[key] = self._now()
        result.replaced.append(f"{key[0]}/{key[2]}")
        return await self._cluster.apply(wanted) if gone else None

    async def _send(self, wanted: Manifest, found: Manifest | None) -> Manifest:
        if found is not None and (kept := left_replicas(wanted, found)):
            await self._cluster.hand_over(kept)
        try:
            return await self._cluster.apply(wanted)
        except ApiError as error:
            mending = found is not None and hash_of(found) == hash_of(wanted)
            if error.status != 422 or not mending:
                raise
            # Somebody renumbered a port, say: applied beside theirs, ours is a duplicate. We want exactly our lists.
            await self._cluster.merge(wanted)
            return await self._cluster.apply(wanted)

    async def prune(
        self,
        desired: Iterable[Manifest],
        observed: dict[tuple[str, str], Manifest],
        owner: str,
        secret_names: Iterable[str],
    ) -> list[str]:
        """Remove what the custom resource owns and no longer wants; claims never.

        Args:
            desired: what stays.
            observed: what is there and carries the deployment's label, by (kind, name).
            owner: uid of the custom resource.
            secret_names: Secrets to remove first; they cannot be listed, so the objects that are left point to them.

        Returns:
            What was removed, as `Kind/name`.
        """
        keep = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in desired}
        stale = [o for key, o in observed.items() if key not in keep and kind_of(o) != CLAIM and owned(o, owner)]
        if not stale:
            return []
        namespace = stale[0]["metadata"]["namespace"]
        found = [await self._cluster.read(SECRET, namespace, name) for name in secret_names]
        going = [secret for secret in found if secret is not None and owned(secret, owner)] + stale
        removed = []
        for one in going:
            metadata = one["metadata"]
            if metadata.get("deletionTimestamp"):
                continue
            kind: Kind = kind_of(one)
            await self._cluster.delete(kind, namespace, metadata["name"], metadata["uid"])
            removed.append(f"{kind.kind}/{metadata['name']}")
        self.forget(namespace, [(one["kind"], one["metadata"]["name"]) for one in stale])
        return removed


def filled(template: SecretTemplate, token: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> Manifest:
    """A template's manifest with fresh values."""
    values: dict[str, str] = {}
    for key, value in template.keys.items():
        values[key] = token() if value.kind == "random_key" else hashlib.sha256(values[value.of].encode()).hexdigest()
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {**template.manifest, "data": data}


def _obstacle(error: ApiError) -> Obstacle:
    text = error.message.lower()
    words = ("immutable", "updates to statefulset spec", "cannot change roleref", "may not change once set")
    unchangeable = any(word in text for word in words)
    return Obstacle.IMMUTABLE if error.status == 422 and unchangeable else Obstacle.REFUSED


def _state(found: Manifest) -> str:
    """A digest of what people and operators write in an object, not of what its own controllers do."""
    metadata = {
        k: v for k, v in found["metadata"].items() if k not in ("resourceVersion", "managedFields", "generation")
    }
    body = {k: v for k, v in found.items() if k != "status"} | {"metadata": metadata}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
