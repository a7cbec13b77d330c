"""While nothing changes the operator writes nothing; a test that has to watch for a while."""

from __future__ import annotations

import json
import re
import time

from hack.deploy import OPERATOR_NAMESPACE
from tests.e2e.conftest import Space

WATCHED_SECONDS = 65
"""Two rounds of the operator's looks, and one of the orchestrator's canaries."""


def _writes(space: Space) -> float:
    """Write requests of all operator pods so far, by their own count; the leader's lease is kept apart."""
    total = 0.0
    for pod in space.kube.list("pods", OPERATOR_NAMESPACE, "app.kubernetes.io/name=s1vl-operator"):
        name = pod["metadata"]["name"]
        text = space.kube.kubectl(
            "get", "--raw", f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/pods/{name}:8081/proxy/metrics"
        )
        for labels, value in re.findall(r"^s1vl_operator_api_requests_total\{([^}]*)\} (\S+)", text, re.MULTILINE):
            verb = re.search(r'verb="(\w+)"', labels)
            assert verb
            if verb.group(1) not in ("get", "list", "watch") and 'resource="leases"' not in labels:
                total += float(value)
    return total


def _versions(space: Space) -> dict[str, str]:
    kinds = "s1vl,statefulset,deployment,service,configmap,secret,serviceaccount,role,rolebinding,networkpolicy,pvc"
    text = space.kube.kubectl("get", kinds, "-n", space.name, "-o", "json")
    return {f"{o['kind']}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in json.loads(text)["items"]}


def test_the_operator_writes_nothing_while_nothing_changes(space: Space) -> None:
    space.apply_ready(space.deployment("chem", "bio"))
    before = _versions(space)
    writes = _writes(space)
    assert writes > 0
    # The one test that waits for time to pass: it is the thing measured.
    time.sleep(WATCHED_SECONDS)
    assert _writes(space) - writes == 0
    assert _versions(space) == before
