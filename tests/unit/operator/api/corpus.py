"""Good and bad custom resources; `tests/api` puts the same ones before a real API server."""

from __future__ import annotations

from typing import Any

Resource = dict[str, Any]


def resource(spec: Resource | None = None, name: str = "demo") -> Resource:
    """The smallest custom resource, with parts of its spec replaced."""
    return {
        "apiVersion": "s1vl.io/v1alpha1",
        "kind": "S1VLDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"tenants": [{"name": "chem"}], **(spec or {})},
    }


def tenants(*names_and_paths: tuple[str, str | None]) -> Resource:
    return {
        "tenants": [{"name": name, **({} if path is None else {"subPath": path})} for name, path in names_and_paths]
    }


GOOD: dict[str, Resource] = {
    "smallest": resource(),
    "longest name": resource(name="a" * 40),
    "one letter": resource(name="a"),
    "the words inside a word": resource(name="sandboxes-tenants"),
    "whole volume": resource(tenants(("chem", ""))),
    "deep folder": resource(tenants(("chem", "a/b_c/D.e"))),
    "neighbours": resource(tenants(("a", "x/a"), ("b", "x/a-b"), ("c", "x/ab"))),
    "a folder named as another tenant's": resource(tenants(("a", "b"), ("b", "a"))),
    "sandboxes that sleep": resource(
        {
            "sandbox": {"idleTimeoutSeconds": 30, "replicas": 16},
            "tenants": [{"name": "a", "sandbox": {"idleTimeoutSeconds": 0}}],
        }
    ),
    "host folder": resource({"images": {"volume": {"hostPath": "/data/images"}}}),
    "existing claim": resource({"images": {"volume": {"existingClaim": "pictures"}}}),
    "sized claim": resource({"images": {"volume": {"size": "1.5Ti", "storageClassName": "nfs"}}}),
    "other paths": resource({"images": {"clientPath": "/图/a-b_c", "sandboxPath": "/varia/x"}}),
    "model on a claim": resource({"model": {"source": {"existingClaim": {"name": "w", "path": "s1/vl"}}}}),
    "token": resource({"model": {"source": {"huggingFace": {"tokenSecretRef": {"name": "hf"}}}}}),
    "kept cache": resource({"model": {"cache": {"existingClaim": "models"}}}),
    "newest vLLM": resource({"engine": {"version": "0.32.0rc1"}}),
    "first vLLM": resource({"engine": {"version": "0.11.0"}}),
    "vLLM of tomorrow": resource({"engine": {"version": "1.2.3"}}),
    "autoscaling": resource({"orchestrator": {"autoscaling": {"min": 2, "max": 2}}}),
    "autoscaling on jobs": resource({"orchestrator": {"autoscaling": {"max": 2, "jobsPerReplica": 10}}}),
    "engine autoscaling": resource({"engine": {"autoscaling": {"max": 2, "runningRequestsPerReplica": 1}}}),
    "engine autoscaling by KEDA": resource(
        {
            "engine": {
                "autoscaling": {
                    "provider": "keda",
                    "min": 2,
                    "max": 2,
                    "waitingRequestsPerReplica": 5,
                    "prometheusAddress": "http://prometheus.monitoring:9090",
                }
            }
        }
    ),
    "anonymous": resource({"orchestrator": {"anonymousTenant": "chem"}}),
    "numbers as resources": resource({"sandbox": {"resources": {"limits": {"cpu": 2, "memory": "2Gi"}}}}),
    "free-form": resource({"engine": {"podTemplate": {"spec": {"x": [1, {"y": None}]}}, "env": [{"name": "A"}]}}),
    "strict": resource({"sandbox": {"requireIsolation": "strict"}}),
    "strict for one": resource({"tenants": [{"name": "a", "sandbox": {"requireIsolation": "strict"}}]}),
    "stock sandbox": resource({"sandbox": {"profile": "aio", "image": "aio@sha256:0"}}),
    "stock sandbox, and says so": resource(
        {
            "sandbox": {"profile": "aio", "image": "aio"},
            "tenants": [{"name": "a"}, {"name": "b", "sandbox": {"requireIsolation": "bestEffort"}}],
        }
    ),
    "a protocol of one's own": resource({"orchestrator": {"protocolRef": {"name": "a.b", "key": "p"}}}),
    "another protocol": resource({"orchestrator": {"protocol": "tool_call"}}),
    "pictures are kept": resource({"images": {"retention": {"days": 0}}}),
    "pictures go": resource({"images": {"retention": {"days": 1, "sizePerTenant": "1048576"}}}),
    "zero engines": resource({"engine": {"replicas": 0}}),
}

BAD: dict[str, tuple[Resource, str, str]] = {
    # what: (resource, path, part of the message of both the API server and the operator)
    "name too long": (resource(name="a" * 41), "metadata.name", "at most 40 characters"),
    "name of a child": (resource(name="demo-sandbox"), "metadata.name", "without -sandbox"),
    "name within a child": (resource(name="demo-tenant-x"), "metadata.name", "without -sandbox or -tenant"),
    "name with a dot": (resource(name="a.b"), "metadata.name", "DNS label"),
    "name with a digit first": (resource(name="1a"), "metadata.name", "starts with a letter"),
    "client path relative": (resource({"images": {"clientPath": "data"}}), "spec.images.clientPath", "absolute"),
    "client path root": (resource({"images": {"clientPath": "/"}}), "spec.images.clientPath", "absolute"),
    "client path with slash": (resource({"images": {"clientPath": "/a/"}}), "spec.images.clientPath", "normalised"),
    "sandbox path relative": (resource({"images": {"sandboxPath": "mnt/x"}}), "spec.images.sandboxPath", "absolute"),
    "sandbox path dots": (resource({"images": {"sandboxPath": "/mnt/../x"}}), "spec.images.sandboxPath", "normalised"),
    "sandbox path dot": (resource({"images": {"sandboxPath": "/mnt/."}}), "spec.images.sandboxPath", "normalised"),
    "sandbox path slashes": (resource({"images": {"sandboxPath": "/mnt//x"}}), "spec.images.sandboxPath", "//"),
    "sandbox path space": (resource({"images": {"sandboxPath": "/mnt/x y"}}), "spec.images.sandboxPath", "spaces"),
    "sandbox path line": (resource({"images": {"sandboxPath": "/mnt/x\n"}}), "spec.images.sandboxPath", "spaces"),
    "sandbox path colon": (resource({"images": {"sandboxPath": "/mnt/x:y"}}), "spec.images.sandboxPath", "colons"),
    "sandbox path proc": (resource({"images": {"sandboxPath": "/proc/images"}}), "spec.images.sandboxPath", "/proc"),
    "sandbox path tmp": (resource({"images": {"sandboxPath": "/tmp"}}), "spec.images.sandboxPath", "/tmp"),
    "no volume": (resource({"images": {"volume": {}}}), "spec.images.volume", "exactly one of"),
    "two volumes": (
        resource({"images": {"volume": {"hostPath": "/a", "size": "1Gi"}}}),
        "spec.images.volume",
        "exactly one of existingClaim, hostPath and size",
    ),
    "class of an existing claim": (
        resource({"images": {"volume": {"existingClaim": "a", "storageClassName": "b"}}}),
        "spec.images.volume.storageClassName",
        "storageClassName goes with size only",
    ),
    "host folder relative": (
        resource({"images": {"volume": {"hostPath": "../x"}}}),
        "spec.images.volume.hostPath",
        "absolute",
    ),
    "size": (resource({"images": {"volume": {"size": "many"}}}), "spec.images.volume.size", "match"),
    "two caches": (
        resource({"model": {"cache": {"existingClaim": "a", "size": "1Gi"}}}),
        "spec.model.cache",
        "exactly one of existingClaim and size",
    ),
    "two sources": (
        resource({"model": {"source": {"huggingFace": {}, "existingClaim": {"name": "a"}}}}),
        "spec.model.source",
        "exactly one of huggingFace and existingClaim",
    ),
    "no source": (resource({"model": {"source": {}}}), "spec.model.source", "exactly one of"),
    "weights elsewhere": (
        resource({"model": {"source": {"existingClaim": {"name": "a", "path": "../b"}}}}),
        "spec.model.source.existingClaim.path",
        "relative",
    ),
    "gpus 3": (resource({"engine": {"gpus": 3}}), "spec.engine.gpus", "4"),
    "negative replicas": (resource({"engine": {"replicas": -1}}), "spec.engine.replicas", "0"),
    "privileged port": (resource({"engine": {"port": 80}}), "spec.engine.port", "1024"),
    "all memory and more": (
        resource({"engine": {"gpuMemoryUtilization": "1.5"}}),
        "spec.engine.gpuMemoryUtilization",
        "match",
    ),
    "old vLLM": (resource({"engine": {"version": "0.10.2"}}), "spec.engine.version", "0.11.0"),
    "no version": (resource({"engine": {"version": "latest"}}), "spec.engine.version", "vLLM version"),
    "replicas and autoscaling": (
        resource({"orchestrator": {"replicas": 1, "autoscaling": {"min": 1, "max": 2}}}),
        "spec.orchestrator",
        "only one of replicas and autoscaling",
    ),
    "two protocols": (
        resource({"orchestrator": {"protocol": "s1vl", "protocolRef": {"name": "a"}}}),
        "spec.orchestrator",
        "only one of protocol and protocolRef",
    ),
    "protocol of nobody": (resource({"orchestrator": {"protocol": "mine"}}), "spec.orchestrator.protocol", "thyme"),
    "protocol in another namespace": (
        resource({"orchestrator": {"protocolRef": {"name": "a/b"}}}),
        "spec.orchestrator.protocolRef.name",
        "match",
    ),
    "kept for less than no time": (
        resource({"images": {"retention": {"days": -1}}}),
        "spec.images.retention.days",
        "0",
    ),
    "no room for a picture": (
        resource({"images": {"retention": {"sizePerTenant": "1023Ki"}}}),
        "spec.images.retention.sizePerTenant",
        "at least 1Mi",
    ),
    "a size of a thousand digits": (
        resource({"images": {"retention": {"sizePerTenant": "1e999"}}}),
        "spec.images.retention.sizePerTenant",
        "match",
    ),
    "autoscaling down": (
        resource({"orchestrator": {"autoscaling": {"min": 3, "max": 2}}}),
        "spec.orchestrator.autoscaling.min",
        "min must not be greater than max",
    ),
    "engine autoscaling down": (
        resource({"engine": {"autoscaling": {"min": 3, "max": 2, "waitingRequestsPerReplica": 5}}}),
        "spec.engine.autoscaling.min",
        "min must not be greater than max",
    ),
    "engine autoscaling to nothing": (
        resource({"engine": {"autoscaling": {"min": 0, "max": 2, "waitingRequestsPerReplica": 5}}}),
        "spec.engine.autoscaling.min",
        "1",
    ),
    "engine autoscaling on nothing": (
        resource({"engine": {"autoscaling": {"max": 2}}}),
        "spec.engine.autoscaling",
        "at least one of waitingRequestsPerReplica and runningRequestsPerReplica",
    ),
    "KEDA without Prometheus": (
        resource({"engine": {"autoscaling": {"provider": "keda", "max": 2, "waitingRequestsPerReplica": 5}}}),
        "spec.engine.autoscaling.prometheusAddress",
        "the provider keda needs prometheusAddress",
    ),
    "no URL of Prometheus": (
        resource({"engine": {"autoscaling": {"max": 2, "waitingRequestsPerReplica": 5, "prometheusAddress": "p"}}}),
        "spec.engine.autoscaling.prometheusAddress",
        "match",
    ),
    "management port": (resource({"orchestrator": {"port": 10045}}), "spec.orchestrator.port", "10045"),
    "nobody": (
        resource({"orchestrator": {"anonymousTenant": "bio"}}),
        "spec.orchestrator.anonymousTenant",
        "name of one of the tenants",
    ),
    "another sandbox": (resource({"sandbox": {"profile": "e2b"}}), "spec.sandbox.profile", "aio"),
    "stock sandbox without an image": (
        resource({"sandbox": {"profile": "aio"}, "tenants": [{"name": "a", "sandbox": {"image": "aio"}}]}),
        "spec.sandbox.image",
        "the profile aio needs an image",
    ),
    "strict stock sandbox": (
        resource({"sandbox": {"profile": "aio", "image": "aio", "requireIsolation": "strict"}}),
        "spec.sandbox.requireIsolation",
        "strict goes with s1vl only",
    ),
    "strict stock sandbox of one": (
        resource(
            {
                "sandbox": {"profile": "aio", "image": "aio"},
                "tenants": [{"name": "a", "sandbox": {"requireIsolation": "strict"}}],
            }
        ),
        "spec",
        "no tenant can require strict",
    ),
    "too short a sleep": (
        resource({"sandbox": {"idleTimeoutSeconds": 29}}),
        "spec.sandbox.idleTimeoutSeconds",
        "at least 30",
    ),
    "too short a sleep of one": (
        resource({"tenants": [{"name": "a"}, {"name": "b", "sandbox": {"idleTimeoutSeconds": 1}}]}),
        "spec.tenants[1].sandbox.idleTimeoutSeconds",
        "at least 30",
    ),
    "no tenants": (resource({"tenants": []}), "spec.tenants", "at least 1 item"),
    "tenant's name": (resource(tenants(("Chem", "x"))), "spec.tenants[0].name", "match"),
    "same tenant": (resource(tenants(("chem", "a"), ("chem", "b"))), "spec.tenants[1]", "Duplicate value"),
    "absolute folder": (resource(tenants(("chem", "/a"))), "spec.tenants[0].subPath", "relative"),
    "folder above": (resource(tenants(("chem", "a/../b"))), "spec.tenants[0].subPath", "dot"),
    "hidden folder": (resource(tenants(("chem", ".s1vl"))), "spec.tenants[0].subPath", "dot"),
    "folder with slash": (resource(tenants(("chem", "a/"))), "spec.tenants[0].subPath", "normalised"),
    "whole volume of two": (
        resource(tenants(("chem", ""), ("bio", None))),
        "spec.tenants",
        "single tenant",
    ),
    "same folder": (resource(tenants(("chem", None), ("bio", "chem"))), "spec.tenants", "subPath of one tenant"),
    "folder in a folder": (resource(tenants(("bio", "chem/b"), ("chem", None))), "spec.tenants", "nor lie in it"),
}

CHANGES: dict[str, tuple[Resource, Resource, str]] = {
    # what: (spec before, spec after, part of the API server's message; "" = allowed)
    "volume grows": ({"images": {"volume": {"size": "1Gi"}}}, {"images": {"volume": {"size": "1500Mi"}}}, ""),
    "volume shrinks": (
        {"images": {"volume": {"size": "1Gi"}}},
        {"images": {"volume": {"size": "999Mi"}}},
        "size may grow, not shrink",
    ),
    "another claim": (
        {"images": {"volume": {"existingClaim": "a"}}},
        {"images": {"volume": {"existingClaim": "b"}}},
        "the choice of the image volume is immutable",
    ),
    "claim to host": (
        {"images": {"volume": {"size": "1Gi"}}},
        {"images": {"volume": {"hostPath": "/a"}}},
        "the choice of the image volume is immutable",
    ),
    "another class": (
        {"images": {"volume": {"size": "1Gi"}}},
        {"images": {"volume": {"size": "1Gi", "storageClassName": "nfs"}}},
        "the choice of the image volume is immutable",
    ),
    "default said": ({}, {"images": {"volume": {"size": "100Gi"}}}, ""),
    "another cache": (
        {"model": {"cache": {"existingClaim": "a"}}},
        {"model": {"cache": {"existingClaim": "b"}}},
        "the choice of the model cache is immutable",
    ),
    "a protocol of one's own": ({}, {"orchestrator": {"protocolRef": {"name": "a"}}}, ""),
    "a built-in protocol again": (
        {"orchestrator": {"protocolRef": {"name": "a"}}},
        {"orchestrator": {"protocol": "thyme"}},
        "",
    ),
    "another tenant": (tenants(("a", None)), tenants(("a", None), ("b", None)), ""),
}
