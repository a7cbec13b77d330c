"""The control plane of these tests is a real one."""

from __future__ import annotations

import subprocess

import pytest

from hack.cluster.api import Api, ApiError
from hack.cluster.build import KUBERNETES_VERSION
from hack.cluster.controlplane import Running
from hack.cluster.paths import program


def test_serves_the_pinned_version(apiserver: Running) -> None:
    assert Api(apiserver.kubeconfig).request("GET", "/version")["gitVersion"] == KUBERNETES_VERSION


def test_keeps_what_is_written_and_refuses_a_conflict(apiserver: Running) -> None:
    api = Api(apiserver.kubeconfig)
    path = "/api/v1/namespaces/default/configmaps"
    made = api.request("POST", path, {"metadata": {"generateName": "probe-"}, "data": {"a": "1"}})
    name = made["metadata"]["name"]
    api.request("PUT", f"{path}/{name}", {**made, "data": {"a": "2"}})
    with pytest.raises(ApiError, match="409"):
        api.request("PUT", f"{path}/{name}", {**made, "data": {"a": "3"}})
    assert api.request("GET", f"{path}/{name}")["data"] == {"a": "2"}


@pytest.mark.parametrize(("user", "allowed"), [((), True), (("--as=nobody",), False)])
def test_kubectl_reads_the_kubeconfig_and_rbac_applies(kubeconfig: str, user: tuple[str, ...], allowed: bool) -> None:
    command = [program("kubectl"), f"--kubeconfig={kubeconfig}", *user, "get", "secrets", "-n", "default"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == allowed, done.stderr
    assert allowed or "Forbidden" in done.stderr
