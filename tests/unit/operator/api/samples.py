"""For every field of the spec two good values, so that it can be changed; `tests/api` changes them too."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from s1vl_operator.api.crd import schema

Spec = dict[str, Any]

_MORE: Spec = {"metadata": {"annotations": {"a": "b"}}}

SAMPLES: dict[str, tuple[Any, Any]] = {
    "spec.model.name": ("ScienceOne-AI/S1-VL-32B", "lab/S1-VL-32B"),
    "spec.model.servedName": ("a", "b"),
    "spec.model.source.huggingFace.revision": ("main", "v1"),
    "spec.model.source.huggingFace.tokenSecretRef.name": ("a", "b"),
    "spec.model.source.huggingFace.tokenSecretRef.key": ("token", "other"),
    "spec.model.source.existingClaim.name": ("a", "b"),
    "spec.model.source.existingClaim.path": ("a", "b"),
    "spec.model.cache.existingClaim": ("a", "b"),
    "spec.model.cache.size": ("1Gi", "2Gi"),
    "spec.model.cache.storageClassName": ("a", "b"),
    "spec.engine.image": ("vllm/vllm-openai:v0.11.2", "vllm/vllm-openai:v0.12.0"),
    "spec.engine.version": ("0.11.2", "0.12.0"),
    "spec.engine.replicas": (1, 3),
    "spec.engine.autoscaling.provider": ("hpa", "keda"),
    "spec.engine.autoscaling.min": (1, 2),
    "spec.engine.autoscaling.max": (3, 4),
    "spec.engine.autoscaling.waitingRequestsPerReplica": (4, 8),
    "spec.engine.autoscaling.runningRequestsPerReplica": (16, 32),
    "spec.engine.autoscaling.prometheusAddress": ("http://a", "http://b"),
    "spec.engine.gpus": (4, 8),
    "spec.engine.gpuResource": ("nvidia.com/gpu", "amd.com/gpu"),
    "spec.engine.maxModelLen": (32768, 65536),
    "spec.engine.imagesPerPrompt": (15, 8),
    "spec.engine.reasoningParser": ("deepseek_r1", "qwen3"),
    "spec.engine.prefixCaching": (True, False),
    "spec.engine.gpuMemoryUtilization": ("0.95", "0.9"),
    "spec.engine.port": (9200, 9300),
    "spec.engine.shmSize": ("20Gi", "30Gi"),
    "spec.engine.extraArgs": (["--a"], ["--b"]),
    "spec.engine.env": ([{"name": "A", "value": "1"}], [{"name": "A", "value": "2"}]),
    "spec.engine.resources.requests": ({"cpu": "1"}, {"cpu": "2"}),
    "spec.engine.resources.limits": ({"memory": "1Gi"}, {"memory": "2Gi"}),
    "spec.engine.nodeSelector": ({"a": "b"}, {"a": "c"}),
    "spec.engine.tolerations": ([{"key": "a", "operator": "Exists"}], [{"operator": "Exists"}]),
    "spec.engine.affinity": ({}, {"podAntiAffinity": {}}),
    "spec.engine.startupTimeoutSeconds": (3600, 7200),
    "spec.engine.drainTimeoutSeconds": (300, 600),
    "spec.engine.stallTimeoutSeconds": (120, 240),
    "spec.engine.podTemplate": ({}, _MORE),
    "spec.images.clientPath": ("/data/images", "/pictures"),
    "spec.images.sandboxPath": ("/mnt/data/images", "/mnt/pictures"),
    "spec.images.volume.existingClaim": ("a", "b"),
    "spec.images.volume.hostPath": ("/a", "/b"),
    "spec.images.volume.size": ("1Gi", "2Gi"),
    "spec.images.volume.storageClassName": ("a", "b"),
    "spec.images.retention.days": (7, 30),
    "spec.images.retention.sizePerTenant": ("1Gi", "2Gi"),
    "spec.sandbox.image": ("a", "b"),
    "spec.sandbox.profile": ("s1vl", "aio"),
    "spec.sandbox.requireIsolation": ("bestEffort", "strict"),
    "spec.sandbox.replicas": (1, 2),
    "spec.sandbox.idleTimeoutSeconds": (30, 300),
    "spec.sandbox.port": (8080, 8081),
    "spec.sandbox.resources.requests": ({"cpu": "1"}, {"cpu": "2"}),
    "spec.sandbox.resources.limits": ({"memory": "1Gi"}, {"memory": "2Gi"}),
    "spec.sandbox.runtimeClassName": ("gvisor", "kata"),
    "spec.sandbox.maxSessions": (8, 9),
    "spec.sandbox.executionTimeoutSeconds": (30, 60),
    "spec.sandbox.podTemplate": ({}, _MORE),
    "spec.orchestrator.replicas": (1, 3),
    "spec.orchestrator.autoscaling.min": (1, 2),
    "spec.orchestrator.autoscaling.max": (3, 4),
    "spec.orchestrator.autoscaling.targetCPUUtilizationPercentage": (70, 80),
    "spec.orchestrator.autoscaling.jobsPerReplica": (10, 20),
    "spec.orchestrator.port": (10044, 8000),
    "spec.orchestrator.protocol": ("s1vl", "thyme"),
    "spec.orchestrator.protocolRef.name": ("a", "b"),
    "spec.orchestrator.protocolRef.key": ("a", "b"),
    "spec.orchestrator.maxTurns": (8, 9),
    "spec.orchestrator.deadlineSeconds": (270, 600),
    "spec.orchestrator.anonymousTenant": ("", "chem"),
    "spec.orchestrator.resources.requests": ({"cpu": "1"}, {"cpu": "2"}),
    "spec.orchestrator.resources.limits": ({"memory": "1Gi"}, {"memory": "2Gi"}),
    "spec.orchestrator.service.type": ("ClusterIP", "LoadBalancer"),
    "spec.orchestrator.service.annotations": ({"a": "b"}, {"a": "c"}),
    "spec.orchestrator.podTemplate": ({}, _MORE),
    "spec.tenants[].name": ("chem", "physics"),
    "spec.tenants[].subPath": ("a", "b"),
    "spec.tenants[].apiKeySecretRef.name": ("a", "b"),
    "spec.tenants[].apiKeySecretRef.key": ("a", "b"),
    "spec.tenants[].sandbox.image": ("a", "b"),
    "spec.tenants[].sandbox.resources.requests": ({"cpu": "1"}, {"cpu": "2"}),
    "spec.tenants[].sandbox.resources.limits": ({"memory": "1Gi"}, {"memory": "2Gi"}),
    "spec.tenants[].sandbox.runtimeClassName": ("gvisor", "kata"),
    "spec.tenants[].sandbox.requireIsolation": ("bestEffort", "strict"),
    "spec.tenants[].sandbox.replicas": (1, 2),
    "spec.tenants[].sandbox.idleTimeoutSeconds": (30, 300),
    "spec.tenants[].sandbox.maxSessions": (8, 9),
    "spec.tenants[].sandbox.podTemplate": ({}, _MORE),
    "spec.tenants[].limits.concurrentRequests": (4, 5),
    "spec.tenants[].limits.queuedRequests": (16, 17),
    "spec.tenants[].limits.requestsPerMinute": (0, 60),
    "spec.networkPolicy.enabled": (True, False),
    "spec.networkPolicy.ingressFrom": ([{"podSelector": {}}], [{"namespaceSelector": {}}]),
    "spec.paused": (False, True),
}
"""Field -> its value before and after."""

_SCALING = {"spec.engine.autoscaling.max": 5, "spec.engine.autoscaling.waitingRequestsPerReplica": 8}

BESIDE: dict[str, Any] = {
    "spec.engine.autoscaling.provider": {**_SCALING, "spec.engine.autoscaling.prometheusAddress": "http://a"},
    "spec.engine.autoscaling.min": _SCALING,
    "spec.engine.autoscaling.max": _SCALING,
    "spec.engine.autoscaling.waitingRequestsPerReplica": _SCALING,
    "spec.engine.autoscaling.runningRequestsPerReplica": _SCALING,
    "spec.engine.autoscaling.prometheusAddress": {**_SCALING, "spec.engine.autoscaling.provider": "keda"},
    "spec.model.source.huggingFace.tokenSecretRef.key": {"spec.model.source.huggingFace.tokenSecretRef.name": "a"},
    "spec.model.source.existingClaim.path": {"spec.model.source.existingClaim.name": "a"},
    "spec.model.cache.storageClassName": {"spec.model.cache.size": "1Gi"},
    "spec.images.volume.storageClassName": {"spec.images.volume.size": "1Gi"},
    "spec.sandbox.profile": {"spec.sandbox.image": "a"},
    "spec.orchestrator.autoscaling.min": {"spec.orchestrator.autoscaling.max": 5},
    "spec.orchestrator.autoscaling.targetCPUUtilizationPercentage": {"spec.orchestrator.autoscaling.max": 5},
    "spec.orchestrator.autoscaling.jobsPerReplica": {"spec.orchestrator.autoscaling.max": 5},
    "spec.orchestrator.protocolRef.key": {"spec.orchestrator.protocolRef.name": "a"},
    "spec.tenants[].apiKeySecretRef.key": {"spec.tenants[].apiKeySecretRef.name": "a"},
}
"""Field -> what else must be set where it is."""


def fields() -> Iterator[str]:
    """The path of every field of the spec that holds a value, `[]` standing for the items of a list."""
    yield from _fields(schema()["properties"]["spec"], "spec")


def around(path: str) -> tuple[Spec, Spec]:
    """A spec of two tenants before and after a change of one field; of a tenant's fields, that of the first one."""
    base: Spec = {"tenants": [{"name": "chem"}, {"name": "bio"}]}
    for other, value in BESIDE.get(path, {}).items():
        _put(base, other, value)
    before, after = SAMPLES[path]
    return _put(copy.deepcopy(base), path, before), _put(copy.deepcopy(base), path, after)


def _fields(node: dict[str, Any], path: str) -> Iterator[str]:
    below = node.get("items", node) if "properties" in node.get("items", {}) else node
    if "properties" not in below:
        yield path
    for name, field in below.get("properties", {}).items():
        yield from _fields(field, f"{path}[].{name}" if below is not node else f"{path}.{name}")


def _put(spec: Spec, path: str, value: Any) -> Spec:
    *way, last = path.removeprefix("spec.").split(".")
    place: Any = spec
    for word in way:
        place = place.setdefault(word.removesuffix("[]"), {})
        if word.endswith("[]"):
            place = place[0]
    place[last] = value
    return spec
