"""The real operator process, as the chart runs it: with the chart's rights and no others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hack.cluster.api import Api, ApiError
from hack.ports import free_port
from tests.api.operator.conftest import Space, token_kubeconfig, wait_for

ROOT = Path(__file__).parents[3]
RBAC = "/apis/rbac.authorization.k8s.io/v1"


@dataclass
class Process:
    """One operator process."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    def http(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def leads(self) -> bool:
        return "s1vl_operator_leader 1.0" in self.http("/metrics")[1]

    def writes(self) -> dict[str, float]:
        """Write requests so far by verb and resource, without those on its Lease."""
        pattern = r'^s1vl_operator_api_requests_total\{code="(\d+)",resource="([^"]+)",verb="(\w+)"\} (\S+)'
        found = re.findall(pattern, self.http("/metrics")[1], re.MULTILINE)
        assert found
        reads = ("get", "list")
        return {f"{v} {r} {c}": float(n) for c, r, v, n in found if v not in reads and r != "leases"}

    def deployments(self) -> float:
        """The S1VLDeployments that it tells of."""
        pattern = r'^s1vl_operator_deployments\{condition="Ready",status="\w+"\} (\S+)'
        return sum(float(n) for n in re.findall(pattern, self.http("/metrics")[1], re.MULTILINE))

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=40)

    def said(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def ensure(api: Api, path: str, body: dict[str, object]) -> None:
    try:
        api.request("POST", path, body)
    except ApiError as error:
        if error.status != 409:
            raise


def service_account(space: Space, kubeconfig: str) -> str:
    """A kubeconfig of a service account that may do what the chart's rules say, in the test's own namespace."""
    rules = yaml.safe_load((ROOT / "charts/s1vl/files/operator-rules.yaml").read_text())
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}
    own = [
        {**leases, "verbs": ["create"]},
        {**leases, "resourceNames": ["s1vl-operator"], "verbs": ["get", "update", "patch"]},
    ]
    slices = [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]}]
    name, namespace = f"operator-{space.namespace}", space.namespace
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    space.api.request("POST", accounts, {"metadata": {"name": "operator"}})
    for where, what in ((namespace, [*rules, *own]), ("default", slices)):
        path = f"{RBAC}/namespaces/{where}"
        ensure(space.api, f"{path}/roles", {"metadata": {"name": name}, "rules": what})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        ensure(space.api, f"{path}/rolebindings", {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    answer = space.api.request("POST", f"{accounts}/operator/token", {"spec": {"expirationSeconds": 3600}})
    return token_kubeconfig(kubeconfig, answer["status"]["token"])


@dataclass
class Start:
    """Starts operators, as the service account of a kubeconfig.

    Attributes:
        space: whose namespace they look after.
        kubeconfig: its content.
        folder: for their logs.
    """

    space: Space
    kubeconfig: str
    folder: Path
    started: list[Process] = field(default_factory=list)

    def __call__(self, name: str, *, through: int = 0) -> Process:
        """Start one that reaches the API server directly, or `through` another port."""
        port, log, kubeconfig = free_port(), self.folder / f"{name}.log", self.folder / f"{name}.kubeconfig"
        content = json.loads(self.kubeconfig)
        if through:
            content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{through}"
        kubeconfig.write_text(json.dumps(content))
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("S1VL_")},
            "KUBECONFIG": str(kubeconfig),
            "S1VL_OPERATOR_NAMESPACE": self.space.namespace,
            "S1VL_OPERATOR_WATCH_NAMESPACES": self.space.namespace,
            "S1VL_OPERATOR_POD_NAME": name,
            "S1VL_OPERATOR_HTTP_PORT": str(port),
        }
        with log.open("wb") as file:
            popen = subprocess.Popen(
                [sys.executable, "-m", "s1vl_operator"], env=environment, stderr=file, cwd=self.folder
            )
        self.started.append(Process(popen, port, log))
        return self.started[-1]


@contextlib.contextmanager
def starter(space: Space, kubeconfig: str, folder: Path) -> Iterator[Start]:
    """Starts operators while the context lasts, and kills those that are left.

    Args:
        space: whose namespace they look after.
        kubeconfig: path of a cluster-admin's.
        folder: for their logs.
    """
    start = Start(space, service_account(space, kubeconfig), folder)
    try:
        yield start
    finally:
        for process in start.started:
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()


def quickstart(space: Space) -> None:
    manifest = yaml.safe_load((ROOT / "examples/quickstart.yaml").read_text())
    manifest["metadata"]["namespace"] = space.namespace
    space.api.request("POST", space.path("S1VLDeployment"), manifest)


def rest(process: Process) -> dict[str, float]:
    """The writes, once a whole run has passed without one."""

    def runs() -> float:
        found = re.search(r'reconcile_total\{result="ok"\} (\S+)', process.http("/metrics")[1])
        return float(found.group(1)) if found else 0.0

    def quiet() -> bool:
        writes, ran = process.writes(), runs()
        wait_for("another run", lambda: runs() > ran)
        return process.writes() == writes

    wait_for("a run without a write", quiet, timeout=120)
    return process.writes()
