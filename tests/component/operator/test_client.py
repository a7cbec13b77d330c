"""The client before a server that is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from s1vl_operator.cluster import client
from s1vl_operator.cluster.client import KubernetesCluster
from s1vl_operator.cluster.kinds import CHILDREN, S1VL_DEPLOYMENT, kind_of
from s1vl_operator.cluster.port import ApiError, NotLeading, Unreachable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Connect = Callable[[Handler], Awaitable[KubernetesCluster]]
counted: list[tuple[str, str, int]] = []


def cluster_at(url: str) -> KubernetesCluster:
    configuration = Configuration()
    configuration.host = url
    return KubernetesCluster(ApiClient(configuration), lambda *request: counted.append(request))


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    counted.clear()
    runners: list[web.AppRunner] = []
    clusters: list[KubernetesCluster] = []

    async def start(handler: Handler) -> KubernetesCluster:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        clusters.append(cluster_at(f"http://127.0.0.1:{runner.addresses[0][1]}"))
        return clusters[-1]

    yield start
    for cluster in clusters:
        await cluster.close()
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (502, "<html>bad gateway</html>", "<html>bad gateway</html>"),
        (500, "", "no message"),
        (403, '{"reason": "Forbidden", "message": "you may not"}', "you may not"),
        (429, '["?"]', "?"),
    ],
)
async def test_a_refusal_in_any_form(connect: Connect, status: int, text: str, message: str) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text)

    cluster = await connect(refuse)
    with pytest.raises(ApiError) as refused:
        await cluster.read(S1VL_DEPLOYMENT, "n", "demo")
    assert refused.value.status == status
    assert message in refused.value.message
    assert counted == [("get", "s1vldeployments", status)]


async def test_writes_are_kept_back_where_another_may_lead(connect: Connect) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.path))
        return web.json_response({"items": [], "kind": "S1VLDeployment"})

    leads = True
    whole = await connect(answer)
    cluster = whole.writing_while(lambda: leads)
    cr = {"apiVersion": S1VL_DEPLOYMENT.api_version, "kind": "S1VLDeployment"}
    manifest = {**cr, "metadata": {"name": "demo", "namespace": "n"}}
    await cluster.apply_status(manifest)
    assert asked.pop()[0] == "PATCH"
    leads = False
    writes = (cluster.create, cluster.apply, cluster.merge, cluster.replace, cluster.apply_status)
    for write in (*writes, lambda _: cluster.delete(S1VL_DEPLOYMENT, "n", "demo", "uid")):
        with pytest.raises(NotLeading):
            await write(manifest)
    assert asked == []
    assert await cluster.list(S1VL_DEPLOYMENT, "") == []
    assert asked == [("GET", "/apis/s1vl.io/v1alpha1/s1vldeployments")]
    await whole.apply(manifest)
    assert asked[-1][0] == "PATCH", "the Lease is written so"


async def test_silence(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    import aiohttp

    monkeypatch.setattr(client, "TIMEOUT", aiohttp.ClientTimeout(total=0.1))

    over = asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    cluster = await connect(wait)
    with pytest.raises(Unreachable):
        await cluster.list(CHILDREN[0], "n")
    over.set()
    assert counted == [("list", "persistentvolumeclaims", 0)]


async def test_nobody_listens() -> None:
    counted.clear()
    cluster = cluster_at("http://127.0.0.1:1")
    with pytest.raises(Unreachable, match="GET /apis/s1vl"):
        await cluster.read(S1VL_DEPLOYMENT, "n", "demo")
    await cluster.close()
    assert counted == [("get", "s1vldeployments", 0)]


async def test_a_kind_without_rights_is_not_sent(connect: Connect) -> None:
    with pytest.raises(LookupError, match="no rights are held on v1 Node"):
        kind_of({"apiVersion": "v1", "kind": "Node"})
