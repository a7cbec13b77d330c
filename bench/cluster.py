"""The whole cluster: how soon a deployment is ready, and how soon a tenant that sleeps has run its first cell.

The cluster is this machine's own (`make cluster-up`) unless S1VL_CLUSTER says `current` or `kind`; images and chart are
brought up to date first. The engine is the simulator, which answers at once.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
from PIL import Image, ImageDraw

from bench.figures import Figure, percentile
from hack.deploy import add_resource, prepare
from hack.kube import Kube, wait_for

NAME, TENANT = "bench", "chem"
GPU = "bench.s1vl.io/gpu"
IDLE_SECONDS = 30
WAKES = 5
PATIENCE_SECONDS = 300
QUESTION = "Find the mark"
SANDBOX = f"app.kubernetes.io/component=sandbox,s1vl.io/tenant={TENANT}"


def measure() -> Iterator[Figure]:
    """All figures of this part."""
    kube = prepare(os.environ.get("S1VL_CLUSTER", "local")).kube
    add_resource(kube, GPU, 64)
    with _namespace(kube) as namespace:
        yield Figure("cluster.install", _install(kube, namespace), "s", 60)
        with kube.port_forward(f"svc/{NAME}-orchestrator", namespace, 10044) as url:
            # The first one is not counted: it also has the engine and the forwarded port meet their first request.
            wakes = [_wake(kube, namespace, url) for _ in range(WAKES + 1)][1:]
    yield Figure("cluster.wake_p50", percentile(wakes, 50), "s", 4)
    yield Figure("cluster.wake_max", max(wakes), "s")


@contextlib.contextmanager
def _namespace(kube: Kube) -> Iterator[str]:
    name = f"bench-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        yield name
    finally:
        kube.kubectl("delete", "namespace", name, "--wait=false")


def _install(kube: Kube, namespace: str) -> float:
    """Seconds from the creation of the custom resource until it is Ready; images are on the node."""
    spec = {
        "engine": {"gpuResource": GPU},
        "orchestrator": {"anonymousTenant": TENANT},
        "sandbox": {"idleTimeoutSeconds": IDLE_SECONDS},
        "tenants": [{"name": TENANT}],
    }
    metadata = {"name": NAME, "namespace": namespace}
    began = time.perf_counter()
    kube.apply({"apiVersion": "s1vl.io/v1alpha1", "kind": "S1VLDeployment", "metadata": metadata, "spec": spec})
    patience = f"--timeout={PATIENCE_SECONDS}s"
    wait = ("wait", "--for=condition=Ready", f"s1vl/{NAME}", "-n", namespace, patience)
    kube.kubectl(*wait, timeout=PATIENCE_SECONDS + 20)
    return time.perf_counter() - began


def _wake(kube: Kube, namespace: str, url: str) -> float:
    """Seconds from a request to a tenant without a pod until its first cell has run."""
    # By itself: to a request that comes sooner after the last one the orchestrator would not renew the Lease at once.
    wait_for(f"{TENANT} to fall asleep", lambda: not kube.list("pods", namespace, SANDBOX), timeout=PATIENCE_SECONDS)
    body = _request()
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, trust_env=False) as http:
        http.get("/healthz").raise_for_status()
        began = time.perf_counter()
        with http.stream("POST", "/process?stream=true", json=body) as answer:
            answer.raise_for_status()
            events = _events(answer)
            took = next(time.perf_counter() - began for event, data in events if _is_first_cell(event, data))
            # The session is closed before the sandbox is put to sleep anew.
            for _ in events:
                pass
    return took


def _request() -> dict[str, Any]:
    """A question about a new picture: the simulator's code finds the coloured mark in it, and crops it."""
    picture = Image.new("RGB", (640, 480), (90, 90, 90))
    left, top = 40 + secrets.randbelow(500), 40 + secrets.randbelow(380)
    ImageDraw.Draw(picture).ellipse((left, top, left + 24, top + 24), fill=(214, 32, 38))
    content = io.BytesIO()
    picture.save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    embedded = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    return {"messages": [{"type": "text", "text": QUESTION}, embedded]}


def _events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    event = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data: dict[str, Any] = json.loads(line.removeprefix("data: "))
            if event == "error":
                raise RuntimeError(f"the job failed: {data}")
            yield event, data


def _is_first_cell(event: str, data: dict[str, Any]) -> bool:
    if event != "exec.result":
        return False
    if data["status"] != "ok" or "mark: bbox" not in data["text"]:
        raise RuntimeError(f"the cell did not find the mark: {data}")
    return True
