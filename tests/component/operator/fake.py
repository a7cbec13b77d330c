"""A cluster in memory: the operator's `Cluster`, and the controllers that make workloads ready."""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from s1vl_operator.cluster.kinds import POD, S1VL_DEPLOYMENT, Kind, Manifest, kind_of
from s1vl_operator.cluster.port import ApiError
from s1vl_operator.engine_health import EnginePod
from s1vl_operator.observe import Report, parse_report

Key = tuple[str, str, str]
LIST_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "ports": "port",
    "volumeMounts": "mountPath",
}


def merge(found: Any, wanted: Any, before: Any, word: str = "") -> Any:
    """Server-side apply by one manager: `before` is what it applied last."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        before = before if isinstance(before, dict) else {}
        kept = {k: v for k, v in found.items() if k in wanted or k not in before}
        return {**kept, **{k: merge(found.get(k), v, before.get(k), k) for k, v in wanted.items()}}
    key = LIST_KEYS.get(word)
    if (
        key
        and isinstance(wanted, list)
        and isinstance(found, list)
        and all(isinstance(w, dict) and key in w for w in wanted)
    ):
        old = {b[key]: b for b in before or [] if key in b}
        new = {w[key]: w for w in wanted}
        kept = [f for f in found if f.get(key) not in new and f.get(key) not in old]
        by_key = {f.get(key): f for f in found}
        return [merge(by_key.get(k, {}), w, old.get(k)) for k, w in new.items()] + kept
    return copy.deepcopy(wanted)


@dataclass
class FakeCluster:
    """See `port.Cluster`. `writes` are the (verb, kind, name) of every write request, `now` is its clock."""

    objects: dict[Key, Manifest] = field(default_factory=dict)
    writes: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: Callable[[str, Manifest], ApiError | None] = lambda _verb, _manifest: None
    events: list[Manifest] = field(default_factory=list)
    warnings: list[Manifest] = field(default_factory=list)
    keda: bool = False
    now: Callable[[], str] = lambda: "2026-01-01T00:00:00Z"
    _version: int = 0
    _applied: dict[tuple[str, Key], Manifest] = field(default_factory=dict)

    async def served(self, api_version: str, _plural: str) -> bool:
        return self.keda or not api_version.startswith("keda.sh/")

    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        await asyncio.sleep(0)
        return copy.deepcopy(self.objects.get((kind.kind, namespace, name)))

    async def list(
        self, kind: Kind, namespace: str, *, labels: str = "", fields: str = "", limit: int = 0
    ) -> list[Manifest]:
        await asyncio.sleep(0)
        if kind.kind == "Event":
            return copy.deepcopy(self.warnings)
        assert kind.kind != "Secret", "no right to list Secrets"
        if kind.kind == "ScaledObject" and not self.keda:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        wanted = dict(pair.split("=") for pair in labels.split(",") if pair).items()
        return [
            copy.deepcopy(one)
            for (k, ns, _), one in sorted(self.objects.items())
            if (k, ns) == (kind.kind, namespace) and wanted <= (one["metadata"].get("labels") or {}).items()
        ]

    async def create(self, manifest: Manifest) -> Manifest:
        self._write("create", manifest)
        if manifest["kind"] == "Event":
            self.events.append(manifest)
            return manifest
        if _key(manifest) in self.objects:
            raise ApiError(409, "AlreadyExists", "it exists")
        return self.put(manifest)

    async def apply(self, manifest: Manifest) -> Manifest:
        self._write("apply", manifest)
        key = _key(manifest)
        before = self._applied.get(("operator", key), {})
        made = self.put(merge(self.objects.get(key, {}), manifest, before))
        self._applied["operator", key] = copy.deepcopy(manifest)
        return made

    async def merge(self, manifest: Manifest) -> Manifest:
        self._write("patch", manifest)
        return self.put(merge(self.objects[_key(manifest)], manifest, {}))

    async def replace(self, manifest: Manifest) -> Manifest:
        self._write("update", manifest)
        found = self.objects.get(_key(manifest))
        if found is None or found["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        return self.put(manifest)

    async def hand_over(self, manifest: Manifest) -> None:
        raise AssertionError("no object here has managedFields")

    async def delete(
        self, kind: Kind, namespace: str, name: str, uid: str, *, grace: int | None = None, orphan: bool = False
    ) -> None:
        found = self.objects.get((kind.kind, namespace, name))
        self._write("delete", {"kind": kind.kind, "metadata": {"name": name}})
        if found is not None:
            assert found["metadata"]["uid"] == uid
            for one in self.objects.values() if orphan else ():
                owners = one["metadata"].get("ownerReferences") or []
                one["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
            self.remove(kind.kind, namespace, name)

    async def apply_status(self, manifest: Manifest) -> None:
        self._write("apply-status", manifest)
        found = self.objects.get(_key(manifest))
        if found is None:
            raise ApiError(404, "NotFound", "it is gone")
        if found["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        found["status"] = copy.deepcopy(manifest["status"])

    def put(self, manifest: Manifest) -> Manifest:
        """Store an object as the API server would; returns it as stored."""
        manifest = copy.deepcopy(manifest)
        kind_of(manifest)
        key = _key(manifest)
        found = self.objects.get(key)
        metadata = manifest["metadata"]
        self._version += 1
        metadata["uid"] = found["metadata"]["uid"] if found else metadata.get("uid") or f"uid-{self._version}"
        metadata["creationTimestamp"] = found["metadata"]["creationTimestamp"] if found else self.now()
        if found is None or found.get("spec") != manifest.get("spec"):
            metadata["generation"] = (found["metadata"].get("generation", 0) if found else 0) + 1
        if found is None or {**found, "status": None} != {**manifest, "status": None}:
            metadata["resourceVersion"] = str(self._version)
        if manifest["kind"] == "Service":
            manifest["spec"].setdefault("sessionAffinity", "None")
        self.objects[key] = manifest
        return copy.deepcopy(manifest)

    def get(self, kind: str, name: str, namespace: str = "n") -> Manifest:
        return self.objects[kind, namespace, name]

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object; the garbage collector does the rest."""
        del self.objects[kind, namespace, name]
        for manager, key in list(self._applied):
            if key == (kind, namespace, name):
                del self._applied[manager, key]
        self.collect_garbage()

    def collect_garbage(self) -> None:
        """Remove what has owners, none of which is there any more."""
        uids = {one["metadata"]["uid"] for one in self.objects.values()}
        for (kind, namespace, name), one in list(self.objects.items()):
            owners = one["metadata"].get("ownerReferences") or []
            if owners and not any(owner["uid"] in uids for owner in owners) and (kind, namespace, name) in self.objects:
                self.remove(kind, namespace, name)

    def names(self, kind: str, namespace: str = "n") -> list[str]:
        return sorted(name for k, ns, name in self.objects if (k, ns) == (kind, namespace))

    def run_workloads(self) -> None:
        """Make every StatefulSet and Deployment have its pods and no others, and let them be ready."""
        for (kind, namespace, name), one in list(self.objects.items()):
            if kind not in ("StatefulSet", "Deployment"):
                continue
            count = one["spec"].get("replicas", 1)
            one["status"] = {
                "observedGeneration": one["metadata"]["generation"],
                **dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas"), count),
            }
            for index in range(count):
                self.put(pod(one, f"{name}-{index}", namespace))
            while (POD.kind, namespace, f"{name}-{count}") in self.objects:
                self.remove(POD.kind, namespace, f"{name}-{count}")
                count += 1

    def _write(self, verb: str, manifest: Manifest) -> None:
        self.writes.append((verb, manifest["kind"], manifest["metadata"].get("name", "")))
        if error := self.refuse(verb, manifest):
            raise error


def pod(owner: Manifest, name: str, namespace: str, **status: Any) -> Manifest:
    """A pod of a workload, ready unless `status` says something else."""
    ready = {"type": "Ready", "status": "True"}
    return {
        "apiVersion": POD.api_version,
        "kind": POD.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": owner["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [
                {
                    "kind": owner["kind"],
                    "name": owner["metadata"]["name"],
                    "uid": owner["metadata"]["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": owner["spec"]["template"]["spec"],
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [ready],
            "containerStatuses": [
                {"name": c["name"], "ready": True, "started": True}
                for c in owner["spec"]["template"]["spec"]["containers"]
            ],
            **status,
        },
    }


@dataclass
class FakeHealth:
    """Says which pods are hung, and which are suspected, by uid."""

    hung: frozenset[str] = frozenset()
    suspected: frozenset[str] = frozenset()
    watched: dict[tuple[str, str], list[EnginePod]] = field(default_factory=dict)

    def watch(self, key: tuple[str, str], pods: Iterable[EnginePod]) -> frozenset[str]:
        self.watched[key] = list(pods)
        return self.hung & {pod.uid for pod in self.watched[key]}

    def suspects(self, key: tuple[str, str]) -> frozenset[str]:
        return self.suspected & {pod.uid for pod in self.watched[key]}


@dataclass
class FakeProbe:
    """Orchestrators that say that all is well, but for the tenants of `wrong` and when `silent`."""

    cluster: FakeCluster
    wrong: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    stale: bool = False
    invalid: str = "INVALID"
    """What no protocol may contain."""
    tried: list[str] = field(default_factory=list)
    sessions: dict[str, int] = field(default_factory=dict)
    """By a sandbox pod's address and port."""

    async def __call__(self, pods: Any) -> list[Report]:
        return [self._answer(p) for p in pods]

    async def objection(self, pods: Any, protocol: str) -> str | None:
        if not pods or self.silent:
            return None
        self.tried.append(protocol)
        return f"{self.invalid} is no field" if self.invalid in protocol else ""

    def _answer(self, one: Manifest) -> Report:
        name = one["metadata"]["name"]
        if self.silent:
            return Report(pod=name, error="connection refused")
        deployment = one["metadata"]["labels"]["s1vl.io/deployment"]
        namespace = one["metadata"]["namespace"]
        text = self.cluster.get("ConfigMap", f"{deployment}-orchestrator", namespace)["data"]["config.yaml"]
        spec = self.cluster.get(S1VL_DEPLOYMENT.kind, deployment, namespace)["spec"]
        version = "old" if self.stale else hashlib.sha256(text.encode()).hexdigest()
        sandboxes = {
            o["metadata"]["labels"].get("s1vl.io/tenant")
            for (kind, ns, _), o in self.cluster.objects.items()
            if (kind, ns) == (POD.kind, namespace) and o["metadata"]["labels"]["s1vl.io/deployment"] == deployment
        }
        tenants = [self._tenant(tenant["name"], tenant["name"] in sandboxes) for tenant in spec["tenants"]]
        return parse_report(
            name, {"configVersion": version, "engine": {"ready": True, "message": ""}, "tenants": tenants}
        )

    def _tenant(self, name: str, there: bool) -> dict[str, Any]:
        if not there:
            away = {"consistent": None, "reason": "SandboxUnreachable", "message": "there is no pod"}
            return {"name": name, "ready": False, "reason": "SandboxStarting", "message": "", "paths": away}
        fine = name not in self.wrong
        paths = {
            "consistent": fine,
            "reason": "PathsConsistent" if fine else "CanaryMismatch",
            "message": self.wrong.get(name, ""),
            "checkedAt": "2026-01-01T00:00:00Z",
        }
        reason = "Ready" if fine else "PathsInconsistent"
        return {
            "name": name,
            "ready": fine,
            "reason": reason,
            "message": self.wrong.get(name, ""),
            "paths": paths,
            "jobsRunning": 0,
            "sandboxes": [{"address": address, "sessions": count} for address, count in self.sessions.items()],
        }


def _key(manifest: Manifest) -> Key:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["namespace"], metadata["name"]
