"""What a sandbox can reach, seen from inside the pod: nothing."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Space

CONNECT = """
import json, socket, sys
def reach(host, port):
    try:
        with socket.create_connection((host, int(port)), timeout=4):
            return "connected"
    except OSError as error:
        return type(error).__name__
print(json.dumps({name: reach(host, port) for name, host, port in json.loads(sys.argv[1])}))
"""


@pytest.fixture(scope="module")
def ready(shared_space: Space) -> Space:
    shared_space.apply_ready(shared_space.deployment("chem", "bio"))
    return shared_space


def _addresses(space: Space) -> list[tuple[str, str, int]]:
    service = lambda name: space.kube.get("service", name, space.name)["spec"]["clusterIP"]  # noqa: E731
    pod = lambda selector: space.pods(selector)[0]["status"]["podIP"]  # noqa: E731
    return [
        ("engine service", service("demo-engine"), 9200),
        ("engine pod", pod("app.kubernetes.io/component=engine"), 9200),
        ("api server", space.kube.get("service", "kubernetes", "default")["spec"]["clusterIP"], 443),
        ("other tenant", pod("s1vl.io/tenant=bio"), 8080),
        ("orchestrator", pod("app.kubernetes.io/component=orchestrator"), 10044),
        ("management", pod("app.kubernetes.io/component=orchestrator"), 10045),
        ("dns", space.kube.get("service", "kube-dns", "kube-system")["spec"]["clusterIP"], 53),
    ]


def _reach(space: Space, pod: str, container: str, *targets: tuple[str, str, int]) -> dict[str, str]:
    text = space.kube.exec(
        pod, space.name, "python3", "-c", CONNECT, json.dumps(targets), container=container, timeout=90
    )
    found: dict[str, str] = json.loads(text)
    return found


def test_a_sandbox_reaches_nothing(ready: Space) -> None:
    chem = ready.pods("s1vl.io/tenant=chem")[0]["metadata"]["name"]
    seen = _reach(ready, chem, "sandbox", *_addresses(ready))
    assert set(seen.values()) == {"TimeoutError"}, seen


def test_the_orchestrator_reaches_what_it_needs(ready: Space) -> None:
    """The same probe from the pod that may: otherwise the test above would pass on a broken network."""
    needed = [
        a for a in _addresses(ready) if a[0] in ("engine service", "engine pod", "api server", "other tenant", "dns")
    ]
    seen = _reach(ready, "deploy/demo-orchestrator", "orchestrator", *needed)
    assert set(seen.values()) == {"connected"}, seen


def test_a_stranger_reaches_neither_engine_nor_sandbox(ready: Space) -> None:
    """A pod of the same namespace that is not ours: only the orchestrator's service is open to it."""
    image = ready.pods("app.kubernetes.io/component=orchestrator")[0]["spec"]["containers"][0]["image"]
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "600"],
        "securityContext": security,
    }
    ready.kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "stranger", "namespace": ready.name},
            "spec": {
                "containers": [container],
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
            },
        }
    )
    ready.kube.kubectl("wait", "--for=condition=Ready", "pod/stranger", "-n", ready.name, "--timeout=60s")
    seen = _reach(ready, "stranger", "main", *_addresses(ready))
    assert seen["orchestrator"] == "connected"
    denied = {name: seen[name] for name in ("engine service", "engine pod", "other tenant", "management")}
    assert set(denied.values()) == {"TimeoutError"}, denied


@pytest.mark.parametrize("container", ["sandbox", "kernels"])
def test_a_sandbox_sees_only_its_own_folder_and_no_key(ready: Space, container: str) -> None:
    chem = ready.pods("s1vl.io/tenant=chem")[0]["metadata"]["name"]
    ready.put_image("bio", "secret.txt", b"bio's own")
    found = ready.kube.exec(chem, ready.name, "find", "/mnt/data", "-name", "secret.txt", container=container)
    assert found == ""
    environment = ready.kube.exec(chem, ready.name, "env", container=container)
    assert ready.secret("demo-sandbox-chem", "apiKey") not in environment
    assert ready.tenant_key("chem") not in environment
    with_token = ready.kube.exec(
        chem, ready.name, "sh", "-c", "ls /var/run/secrets 2>/dev/null || true", container=container
    )
    assert with_token == ""
