"""Requests that go on while something is changed, from a pod in the cluster through the Service, as clients' do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hack.kube import wait_for
from tests.e2e.conftest import Space

POD = "traffic"
CLIENTS = ("process", "chat", "plain")
TENANTS = ("chem", "bio")
_PROGRAM = Path(__file__).with_name("traffic_client.py")
_PLAN = "/tmp/plan.json"


@dataclass
class Traffic:
    """The clients' pod. Each client sends one request after another."""

    space: Space
    image: str
    tell: Callable[[str], None]
    keys: dict[str, str] = field(default_factory=dict)
    """By tenant; what the clients are told with the next phase."""
    _checked: int = 0

    def start(self) -> None:
        """Make the pod and wait for the first answers."""
        # Not by its name: what the cluster's DNS does on a busy machine is not looked at here.
        address = self.space.kube.get("service", "demo-orchestrator", self.space.name)["spec"]["clusterIP"]
        url = f"http://[{address}]:10044" if ":" in address else f"http://{address}:10044"
        command = ["python3", "-c", _PROGRAM.read_text(), url, _PLAN]
        container = {
            "name": POD,
            "image": self.image,
            "command": command,
            "env": [{"name": "HOME", "value": "/tmp"}],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        }
        metadata = {"name": POD, "namespace": self.space.name}
        self.space.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        self.space.kube.kubectl("wait", "--for=condition=Ready", f"pod/{POD}", "-n", self.space.name, "--timeout=180s")
        self.keys = {tenant: self.space.tenant_key(tenant) for tenant in TENANTS}
        with self.during("nothing changes"):
            pass

    def enter(self, phase: str, *, stop: bool = False) -> None:
        """Tell the clients the phase and the keys of their next requests."""
        plan = json.dumps({"phase": phase, "keys": self.keys, "stop": stop}).encode()
        # Moved into place: a client must not read half of it.
        write = f"cat > {_PLAN}.new && mv {_PLAN}.new {_PLAN}"
        self.space.kube.exec(POD, self.space.name, "sh", "-c", write, stdin=plan)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Do something; all requests under way or begun then, and one of each client after it, must go well."""
        self.enter(what)
        yield
        self._let_pass(f"after: {what}")
        self._check(what)

    def move(self, tenant: str, key: str) -> None:
        """Give a tenant's clients another key, and wait until they all use it."""
        self.keys[tenant] = key
        self._let_pass(f"{tenant} has another key")

    def _let_pass(self, phase: str) -> None:
        self.enter(phase)
        # Whoever has an answer to a later request has those to all earlier ones.
        self._wait_for_each(phase)

    def _check(self, what: str) -> None:
        seen = self.answers()[self._checked :]
        self._checked += len(seen)
        bad = [answer for answer in seen if answer["status"] != 200 or not answer["right"]]
        slowest = max(answer["seconds"] for answer in seen)
        self.tell(f"{what}: {len(seen)} requests, {len(bad)} without a good answer, the slowest took {slowest:.1f} s")
        assert not bad, bad[:10]

    def stop(self) -> None:
        """Let the clients end, and see that each had all its answers."""
        self.enter("stop", stop=True)
        wait_for("the clients to end", lambda: self._phase() == "Succeeded", timeout=400)
        self._check("the clients stop")

    def answers(self) -> list[dict[str, Any]]:
        """All answers so far, in the order in which they came."""
        text = self.space.kube.kubectl("logs", POD, "-n", self.space.name)
        return [json.loads(line) for line in text.splitlines()]

    def _wait_for_each(self, phase: str) -> None:
        def answered() -> bool:
            assert self._phase() == "Running"
            return {answer["client"] for answer in self.answers() if answer["phase"] == phase} == set(CLIENTS)

        wait_for(f"answers to all clients ({phase})", answered, timeout=400)

    def _phase(self) -> str:
        phase: str = self.space.kube.get("pod", POD, self.space.name)["status"]["phase"]
        return phase
