"""The operator before a real API server. No controller runs here: where one is needed, these tests play it."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hack import kube
from hack.cluster.api import Api, ApiError
from s1vl_operator.api.crd import crd
from s1vl_operator.cluster.apply import Applier
from s1vl_operator.cluster.client import KubernetesCluster
from s1vl_operator.cluster.kinds import CHILDREN, S1VL_DEPLOYMENT
from s1vl_operator.desired import Context
from s1vl_operator.observe import Report
from s1vl_operator.reconcile import Reconciler
from s1vl_operator.telemetry import Metrics

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
READS = frozenset({"get", "list"})
CONTEXT = Context(
    "s1vl:test",
    "s1vl-sandbox:test",
    "vllm/vllm-openai:v0.11.2",
    "IfNotPresent",
    "s1vl-system",
    (("10.0.0.1/32", 6443),),
)
KINDS = {kind.kind: kind for kind in (*CHILDREN, S1VL_DEPLOYMENT)}


wait_for = functools.partial(kube.wait_for, timeout=60, every=0.1)


@dataclass
class Space:
    """A namespace, and what people do in it."""

    api: Api
    namespace: str

    def path(self, kind: str, name: str = "", subresource: str = "") -> str:
        return KINDS[kind].path(self.namespace, name, subresource)

    def get(self, kind: str, name: str) -> Object:
        return self.api.request("GET", self.path(kind, name))

    def names(self, kind: str) -> list[str]:
        return sorted(one["metadata"]["name"] for one in self.api.request("GET", self.path(kind))["items"])

    def secrets(self) -> dict[str, Object]:
        items = self.api.request("GET", f"/api/v1/namespaces/{self.namespace}/secrets")["items"]
        return {one["metadata"]["name"]: one for one in items}

    def patch(self, kind: str, name: str, patch: Object, subresource: str = "") -> Object:
        """A merge patch, as somebody with kubectl."""
        return self.api.request(
            "PATCH", self.path(kind, name, subresource) + "?fieldManager=kubectl-edit", patch, MERGE
        )

    def apply_cr(self, *tenants: str | Object, name: str = "demo", **spec: Any) -> Object:
        body = {
            "apiVersion": S1VL_DEPLOYMENT.api_version,
            "kind": S1VL_DEPLOYMENT.kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"tenants": [t if isinstance(t, dict) else {"name": t} for t in tenants], **spec},
        }
        return self.api.request(
            "PATCH", self.path("S1VLDeployment", name) + "?fieldManager=tests&force=true", body, APPLY
        )

    def cr(self, name: str = "demo") -> Object:
        return self.get("S1VLDeployment", name)

    def condition(self, kind: str, name: str = "demo") -> Object:
        conditions = self.cr(name).get("status", {}).get("conditions", [])
        found: Object = {c["type"]: c for c in conditions}.get(kind, {})
        return found

    def versions(self) -> dict[str, str]:
        """The resourceVersion of everything in the namespace but the Lease of the operators, which is renewed."""
        lists = {kind: self.api.request("GET", self.path(kind))["items"] for kind in KINDS}
        lists["Secret"] = list(self.secrets().values())
        return {
            f"{kind}/{o['metadata']['name']}": o["metadata"]["resourceVersion"]
            for kind, os in lists.items()
            for o in os
            if (kind, o["metadata"]["name"]) != ("Lease", "s1vl-operator")
        }

    def events(self, name: str = "demo") -> list[Object]:
        """As `kubectl describe` finds them."""
        query = f"?fieldSelector=involvedObject.kind=S1VLDeployment,involvedObject.name={name}"
        found: list[Object] = self.api.request("GET", f"/api/v1/namespaces/{self.namespace}/events{query}")["items"]
        return found


@dataclass
class Operator:
    """A reconciler over the real API, that counts its requests."""

    space: Space
    cluster: KubernetesCluster
    requests: list[tuple[str, str, int]]
    seconds: float = 0.0
    reports: list[Report] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new operator that remembers nothing."""

        self.reconciler = Reconciler(
            cluster=self.cluster,
            applier=Applier(self.cluster, lambda: self.seconds),
            probe=self,
            health=self,
            context=lambda: CONTEXT,
            metrics=Metrics(),
            instance="tests",
        )

    async def __call__(self, _pods: Any) -> list[Report]:
        """The Probe: no orchestrator runs here."""
        return self.reports

    def watch(self, _key: Any, _pods: Any) -> frozenset[str]:
        """The Health: no engine runs here."""
        return frozenset()

    def suspects(self, _key: Any) -> frozenset[str]:
        return frozenset()

    async def objection(self, _pods: Any, _protocol: str) -> str | None:
        return None

    async def reconcile(self, name: str = "demo") -> list[tuple[str, str, int]]:
        """One run; returns its write requests as (verb, resource, status)."""
        before = len(self.requests)
        await self.reconciler((self.space.namespace, name))
        return [request for request in self.requests[before:] if request[0] not in READS]

    async def converge(self, name: str = "demo") -> None:
        for _ in range(5):
            if not await self.reconcile(name):
                return
        raise AssertionError("still writing after 5 runs")


def objects(writes: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """The writes that are not the operator's own words."""
    return [write for write in writes if write[1] not in ("s1vldeployments/status", "events")]


@pytest.fixture(scope="session")
def api(kubeconfig: str) -> Api:
    """The API server with the CRD."""
    api = Api(Path(kubeconfig), timeout=30)
    wanted = crd()
    name = wanted["metadata"]["name"]
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    api.request("PATCH", f"{path}?fieldManager=tests&force=true", wanted, APPLY)
    listing = f"/apis/{S1VL_DEPLOYMENT.api_version}/{S1VL_DEPLOYMENT.plural}"
    wait_for("the CRD to be served", lambda: "items" in api.request("GET", listing))
    return api


@pytest.fixture
def space(api: Api) -> Iterator[Space]:
    namespace = f"operator-{secrets.token_hex(4)}"
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    space = Space(api, namespace)
    yield space
    # No garbage collector runs here, and an operator of another test would go on with what is left.
    for name in space.names("S1VLDeployment"):
        api.request("DELETE", space.path("S1VLDeployment", name))
    api.request("DELETE", f"/api/v1/namespaces/{namespace}")


@pytest.fixture
async def operator(space: Space, kubeconfig: str) -> AsyncIterator[Operator]:
    requests: list[tuple[str, str, int]] = []
    cluster = await KubernetesCluster.connect(
        lambda verb, resource, status: requests.append((verb, resource, status)), kubeconfig=kubeconfig
    )
    yield Operator(space, cluster, requests)
    await cluster.close()


def token_kubeconfig(kubeconfig: str, token: str) -> str:
    """A kubeconfig, as JSON, of the same server for the bearer of a token."""
    cluster = json.loads(Path(kubeconfig).read_text())["clusters"][0]["cluster"]
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


@contextlib.contextmanager
def older_crd(space: Space) -> Iterator[None]:
    """While the context lasts the CRD takes any spec, as an older one might that the operator did not come with."""
    loose = crd()
    name = loose["metadata"]["name"]
    schema = loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema.pop("x-kubernetes-validations", None)
    schema["properties"]["spec"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}?fieldManager=tests&force=true"
    probe = {
        "apiVersion": S1VL_DEPLOYMENT.api_version,
        "kind": S1VL_DEPLOYMENT.kind,
        "metadata": {"generateName": "probe-"},
        "spec": {"tenants": "none"},
    }

    def taken() -> bool:
        try:
            space.api.request("POST", f"{space.path('S1VLDeployment')}?dryRun=All", probe)
        except ApiError as error:
            if error.status not in (400, 422):
                raise
            return False
        return True

    space.api.request("PATCH", path, loose, APPLY)
    try:
        wait_for("the loose CRD to be in force", taken)
        yield
    finally:
        space.api.request("PATCH", path, crd(), APPLY)
        wait_for("the real CRD to be in force again", lambda: not taken())
