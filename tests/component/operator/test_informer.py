"""kopf's watching before an API server of our own, that breaks off, forgets and refuses."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import kopf
import pytest
from aiohttp import web

from s1vl_operator import handlers
from s1vl_operator.cluster.kinds import CHILDREN, POD, S1VL_DEPLOYMENT, Kind
from s1vl_operator.desired.names import DEPLOYMENT_LABEL
from s1vl_operator.informer import Informer, Interrupted

KINDS = (*CHILDREN, POD, S1VL_DEPLOYMENT)
Call = tuple[str, str, bool]
PATIENCE = 60


class Server:
    """Lists `objects`; a watch lasts until `expire`, `drop` or the end, and then gets what that says.

    Attributes:
        objects: by the plural of their kind.
        away: whether it does not even say what it serves.
        url: of the server.
        refuse: the status of every answer to a list or a watch, if it is not 0.
    """

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {kind.plural: [] for kind in KINDS}
        self.refuse = 0
        self.away = False
        self.url = ""
        self.lists: list[str] = []
        self.watching: set[str] = set()
        self.watches = 0
        self._over = asyncio.Event()
        self._last: dict[str, Any] | None = None

    def end_watches(self, last: dict[str, Any] | None) -> None:
        """End every watch that stands, with a last event or in the middle of everything."""
        self._last = last
        self._over.set()
        self._over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.away and request.path == "/api":
            assert request.transport is not None
            request.transport.abort()
        kinds = {kind.plural: kind for kind in KINDS}
        kind = kinds.get(request.path.rpartition("/")[2])
        if kind is None:
            return web.json_response(discovery(request.path))
        if self.refuse:
            status = {"kind": "Status", "code": self.refuse, "message": "not now"}
            return web.json_response(status, status=self.refuse)
        if "watch" not in request.query:
            self.lists.append(kind.plural)
            listing = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {"resourceVersion": "5"}}
            return web.json_response({**listing, "items": self.objects[kind.plural]})
        response = web.StreamResponse()
        await response.prepare(request)
        over = self._over
        self.watching.add(kind.plural)
        self.watches += 1
        await over.wait()
        self.watching.discard(kind.plural)
        if self._last is None:
            if request.transport is not None:
                request.transport.abort()
        else:
            await response.write(json.dumps(self._last).encode() + b"\n")
        return response


def discovery(path: str) -> dict[str, Any]:
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        groups = sorted({kind.api_version for kind in KINDS if kind.group})
        versions = {group: {"groupVersion": group, "version": group.partition("/")[2]} for group in groups}
        return {
            "groups": [
                {"name": group.partition("/")[0], "versions": [version], "preferredVersion": version}
                for group, version in versions.items()
            ]
        }
    verbs = ["get", "list", "watch"]
    found = [kind for kind in KINDS if path.endswith(f"/{kind.api_version}")]
    resources = [
        {"name": k.plural, "singularName": k.kind.lower(), "kind": k.kind, "namespaced": True, "verbs": verbs}
        for k in found
    ]
    # kopf wants to know these two, whether it watches them or not.
    namespaces = {"name": "namespaces", "singularName": "namespace", "kind": "Namespace", "namespaced": False}
    return {"resources": [*resources, {**namespaces, "verbs": verbs}] if path == "/api/v1" else resources}


def thing(kind: Kind, name: str, generation: int = 1) -> dict[str, Any]:
    labels = {} if kind is S1VL_DEPLOYMENT else {DEPLOYMENT_LABEL: "demo"}
    metadata = {"name": name, "namespace": "n", "uid": f"{kind.kind}-{name}", "generation": generation}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {**metadata, "labels": labels}}


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    monkeypatch.setattr(handlers, "_service_account", lambda **_: kopf.ConnectionInfo(server=server.url, token="t"))
    whole = handlers.settings

    def impatient() -> Any:
        made = whole()
        made.networking.error_backoffs = (0.05, 0.05)
        return made

    monkeypatch.setattr(handlers, "settings", impatient)
    yield server
    server.end_watches(None)
    await runner.cleanup()
    # kopf forgets tasks that failed beside the first; asyncio tells of that when they are collected.
    gc.collect()


@dataclass
class Watching:
    """An informer, and what it said."""

    informer: Informer
    calls: list[Call]


Watch = Callable[[], Watching]


@pytest.fixture
async def watch(server: Server) -> AsyncIterator[Watch]:
    """Starts informers; each that is left is stopped, or its threads would keep the tests from ending."""
    del server
    started: list[Watching] = []

    def start() -> Watching:
        calls: list[Call] = []
        informer = Informer(lambda *call: calls.append(call), ("n",))
        informer.start()
        started.append(Watching(informer, calls))
        return started[-1]

    yield start
    for one in started:
        await one.informer.stop()


async def until(probe: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not probe():  # noqa: ASYNC110 (of another thread, and of a server)
            await asyncio.sleep(0.01)


async def test_objects_that_went_unseen_are_noticed_by_a_list(server: Server, watch: Watch) -> None:
    server.objects[S1VL_DEPLOYMENT.plural] = [thing(S1VL_DEPLOYMENT, "demo"), thing(S1VL_DEPLOYMENT, "left")]
    server.objects[POD.plural] = [thing(POD, "pod-0")]
    watching = watch()
    informer, told = watching.informer, watching.calls
    await until(lambda: len(server.watching) == len(KINDS) and len(told) == 3)
    assert sorted(told) == [("n", "demo", False), ("n", "demo", True), ("n", "left", True)]
    assert informer.ready
    assert informer.alive

    told.clear()
    server.objects[S1VL_DEPLOYMENT.plural] = [thing(S1VL_DEPLOYMENT, "demo"), thing(S1VL_DEPLOYMENT, "new")]
    server.objects[POD.plural] = []
    server.lists.clear()
    server.end_watches({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
    # What is gone was never told of: that is what looking again and again is for. What is there, is told of.
    await until(lambda: len(server.lists) == len(KINDS) and len(told) == 2)
    assert sorted(told) == [("n", "demo", False), ("n", "new", True)]
    await informer.stop()
    assert not informer.alive


async def test_a_watch_that_breaks_off_is_taken_up_without_a_list(server: Server, watch: Watch) -> None:
    informer = watch().informer
    await until(lambda: len(server.watching) == len(KINDS))
    lists, watches = len(server.lists), server.watches
    server.end_watches(None)
    await until(lambda: server.watches >= watches + len(KINDS))
    assert len(server.lists) == lists
    assert not informer.ended.is_set()


@pytest.mark.parametrize("status", [500, 503, 401, 404])
async def test_an_answer_that_passes_interrupts(server: Server, watch: Watch, status: int) -> None:
    server.refuse = status
    informer = watch().informer
    await asyncio.wait_for(informer.ended.wait(), PATIENCE)
    assert isinstance(informer.failure(), Interrupted)


async def test_an_api_server_that_is_away_from_the_start_interrupts(server: Server, watch: Watch) -> None:
    server.away = True
    informer = watch().informer
    await asyncio.wait_for(informer.ended.wait(), PATIENCE)
    assert isinstance(informer.failure(), Interrupted)


async def test_a_refusal_for_good_does_not(server: Server, watch: Watch) -> None:
    server.refuse = 403
    informer = watch().informer
    await asyncio.wait_for(informer.ended.wait(), PATIENCE)
    failure = informer.failure()
    assert not isinstance(failure, Interrupted)
    assert "not now" in str(failure.__cause__)


async def test_it_can_be_started_anew_again_and_again(server: Server, watch: Watch) -> None:
    server.objects[S1VL_DEPLOYMENT.plural] = [thing(S1VL_DEPLOYMENT, "demo")]
    threads = []
    for _ in range(4):
        watching, before = watch(), server.watches
        await until(lambda: server.watches >= before + len(KINDS))  # noqa: B023 (waited for at once)
        await until(lambda: watching.calls == [("n", "demo", True)])  # noqa: B023
        await watching.informer.stop()
        threads.append([thread.name for thread in threading.enumerate() if "informer" in thread.name])
    assert threads == [[]] * 4
