"""Jobs at several engine pods: each stays at one, and goes on elsewhere when it must."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from s1vl_orchestrator import engine_http, engine_pods
from tests.component.orchestrator.conftest import World, code, final, image, png, text, until
from tests.component.orchestrator.fakes import Fail, FakeEngine, served
from tests.component.orchestrator.test_stream import all_events

MODEL = "ScienceOne-AI/S1-VL-32B"
HOST = "engine-pods.test"
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
THREE = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
WAIT = "import os, time\nwhile not os.path.exists(output_dir + '/go'):\n    time.sleep(0.05)"
CROP = "image_1.resize((40, 40)).save(output_dir + '/a.png')"


@dataclass
class Pods:
    """Scripted engines at addresses of their own and one port."""

    world: World
    port: int
    engines: dict[str, FakeEngine] = field(default_factory=dict)
    servers: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def start(self, *addresses: str, listed: bool = True, **how: Any) -> None:
        for address in addresses:
            self.engines[address] = FakeEngine(script=[final("red")], **how)
            self.servers[address] = AsyncExitStack()
            await self.servers[address].enter_async_context(served(self.engines[address].app(), self.port, address))
        if listed:
            await self.list(*addresses)

    async def stop(self, address: str) -> None:
        await self.servers.pop(address).aclose()

    async def list(self, *addresses: str) -> None:
        self.world.addresses = list(addresses)
        await until(lambda: self.seen() == set(addresses), "the pods to be seen")

    def seen(self) -> set[str]:
        return {pod["address"].split(":")[0] for pod in self.all() if pod["listed"]}

    def all(self) -> list[dict[str, Any]]:
        pods: list[dict[str, Any]] = self.world.service.describe()["engine"]["pods"]
        return pods

    def of(self, address: str) -> dict[str, Any]:
        return next(pod for pod in self.all() if pod["address"] == f"{address}:{self.port}")

    def script(self, *steps: Any) -> None:
        """The same turns for all, however they are spread."""
        for engine in self.engines.values():
            engine.script = list(steps)

    def asked(self) -> dict[str, int]:
        return {address: len(engine.requests) for address, engine in self.engines.items() if engine.requests}

    def by_turn(self, *steps: Any) -> None:
        """Turns by how far the prompt is, so that it does not matter which pod is asked."""

        def say(messages: list[dict[str, Any]]) -> str:
            step = steps[sum(message["role"] == "assistant" for message in messages)]
            return step(messages) if callable(step) else step

        self.script(say)


@pytest.fixture
async def pods(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pods]:
    monkeypatch.setattr(engine_pods, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(engine_pods, "WATCH_LEAST_SECONDS", 0.05)
    with contextlib.ExitStack() as held:
        probe = held.enter_context(socket.socket())
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    pods = Pods(world, port)
    # Nothing listens there: whoever is answered was answered by a pod.
    world.config["engine"] |= {"url": f"http://127.0.0.9:{port}", "podsHost": HOST}
    for tenant in world.config["tenants"]:
        tenant["limits"]["concurrentRequests"] = 16
    world.write_config()
    await until(lambda: world.service.snapshot.config.engine.pods_host == HOST)  # type: ignore[union-attr]
    try:
        yield pods
    finally:
        for address in list(pods.servers):
            await pods.stop(address)


def pictures(request: dict[str, Any]) -> list[bool]:
    """For each picture of a prompt whether it is there in full."""
    contents = [message["content"] for message in request["messages"] if isinstance(message["content"], list)]
    return [part["image_url"] is not None for parts in contents for part in parts if part["type"] == "image_url"]


async def plain(world: World, **more: Any) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], **more}
    response = await world.http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response.text


async def test_all_turns_of_a_job_go_to_one_pod(world: World, pods: Pods) -> None:
    await pods.start(*THREE)
    for number in range(3):
        pods.script(code("print(1)"), code(CROP), final("red"))
        for engine in pods.engines.values():
            engine.requests.clear()
        result = await world.answer(text(), image(png(size=(64 + number, 64))))
        assert len(result["turns"]) == 3
        [(address, count)] = pods.asked().items()
        assert count == 3
        assert [pictures(request) for request in pods.engines[address].requests] == [[True], [False], [False, True]]
    assert {pod["seats"] + pod["requests"] for pod in pods.all()} == {0}


async def test_new_jobs_go_where_the_fewest_are(world: World, pods: Pods) -> None:
    await pods.start(*THREE)
    pods.script(Fail(-1))
    running = [asyncio.create_task(plain(world)) for _ in range(3)]
    await until(lambda: sum(pods.asked().values()) == 3)
    running += [asyncio.create_task(world.ask(text(), image(png()))) for _ in range(6)]
    await until(lambda: sum(pods.asked().values()) == 9, "all requests to be asked")
    assert pods.asked() == dict.fromkeys(THREE, 3)
    assert [(pod["seats"], pod["requests"]) for pod in pods.all()] == [(3, 3)] * 3
    for task in running:
        task.cancel()
    await until(lambda: all(pod["seats"] == pod["requests"] == 0 for pod in pods.all()), "the places to be free")


async def test_a_job_has_its_place_while_its_code_runs(world: World, pods: Pods) -> None:
    await pods.start(*THREE[:2])
    pods.by_turn(code(WAIT), final("red"))
    jobs = [asyncio.create_task(world.answer(text(), image(png()))) for _ in range(4)]
    await until(lambda: sorted((pod["seats"], pod["requests"]) for pod in pods.all()) == [(2, 0), (2, 0)], "four cells")
    await until(lambda: len(list(world.folder().glob(".s1vl/jobs/*/output"))) == 4)
    for output in world.folder().glob(".s1vl/jobs/*/output"):
        (output / "go").touch()
    assert [(await job)["answer"] for job in jobs] == ["red"] * 4
    assert pods.asked() == dict.fromkeys(THREE[:2], 4)


@pytest.mark.parametrize("how", ["draining", "left", "503"])
async def test_a_job_goes_on_elsewhere_with_its_pictures_in_full(world: World, pods: Pods, how: str) -> None:
    await pods.start(*THREE[:2])
    left: list[str] = []

    def leave(_: object) -> str:
        [address] = pods.asked()
        left.append(address)
        pods.engines[address].draining = how == "draining"
        if how == "503":
            pods.engines[address].script = [Fail(503)]
        if how == "left":
            world.addresses = [other for other in THREE[:2] if other != address]
        return code("import time; time.sleep(1)" if how == "left" else "print(1)")

    pods.by_turn(leave, code(CROP), final("red"))
    result = await world.answer(text(), image(png()))
    assert (result["answer"], len(result["turns"])) == ("red", 3)
    [first] = left
    [second] = {*THREE[:2]} - {first}
    assert [pictures(request) for request in pods.engines[second].requests] == [[True], [False, True]]
    tried = 1 if how == "left" else 2
    assert pods.asked()[first] == tried
    assert [turn["engine"]["attempts"] for turn in result["turns"]] == [1, tried, 1]
    assert (await world.http.get("/metrics")).text.count("s1vl_engine_moves_total 1.0") == 1
    if how != "left":
        assert pods.of(first)["avoided"]
        assert ("cannot schedule" if how == "draining" else "503") in pods.of(first)["reason"]
        # New ones do not even try.
        pods.script(final("blue"))
        assert (await world.answer(text(), image(png())))["answer"] == "blue"
        assert pods.asked()[first] == tried


async def test_other_jobs_leave_a_draining_pod_without_asking_it(world: World, pods: Pods) -> None:
    first, second = THREE[:2]
    await pods.start(first)
    pods.by_turn(code(WAIT), final("red"))
    jobs = [asyncio.create_task(world.answer(text(), image(png()))) for _ in range(3)]
    outputs = await until(lambda: len(found := list(world.folder().glob(".s1vl/jobs/*/output"))) == 3 and found)
    await until(lambda: pods.of(first)["requests"] == 0 and pods.asked() == {first: 3}, "three cells")
    await pods.start(second, listed=False)
    pods.by_turn("", final("red"))
    await pods.list(first, second)
    pods.engines[first].draining = True
    (outputs[0] / "go").touch()
    await until(lambda: pods.of(first)["avoided"], "one job to notice")
    for output in outputs[1:]:
        (output / "go").touch()
    answers = [await job for job in jobs]
    assert [answer["answer"] for answer in answers] == ["red"] * 3
    assert sorted(answer["turns"][1]["engine"]["attempts"] for answer in answers) == [1, 1, 2]
    assert pods.asked() == {first: 4, second: 3}


async def say_hung(world: World, *addresses: str) -> None:
    world.write_pods(engine={"hung": list(addresses)})
    await until(lambda: world.service.snapshot.hung == addresses)  # type: ignore[union-attr]


@pytest.mark.parametrize("mode", ["job", "plain"])
async def test_who_waits_for_a_pod_that_hangs_is_served_by_another(world: World, pods: Pods, mode: str) -> None:
    await pods.start(*THREE[:2])
    pods.script(Fail(-1))
    asked = world.answer(text(), image(png())) if mode == "job" else plain(world)
    waiting = asyncio.create_task(asked)
    await until(lambda: len(pods.asked()) == 1, "the request to wait")
    [hung] = pods.asked()
    [other] = {*THREE[:2]} - {hung}
    pods.engines[other].script = [final("red")]
    await say_hung(world, hung)
    assert "red" in str(await waiting)
    await until(lambda: pods.engines[hung].aborted == 1)
    assert (pods.of(hung)["avoided"], pods.of(other)["avoided"]) == (True, False)
    # New ones do not even try.
    for _ in range(4):
        await plain(world)
    assert pods.asked() == {hung: 1, other: 5}
    await until(lambda: world.service.describe()["engine"]["ready"])


@pytest.mark.parametrize("first", ["hung", "listed"])
async def test_who_came_by_the_services_name_does_not_wait_for_a_pod_that_hangs(
    world: World, pods: Pods, first: str
) -> None:
    """As long as DNS names no pod nobody knows which one a request is at."""
    service = "127.0.0.9"
    await pods.start(service, listed=False)
    pods.script(Fail(-1))
    waiting = asyncio.create_task(plain(world))
    await until(pods.asked, "the request to wait")
    # Who is sent away may come back before another pod is listed.
    pods.engines[service].script = [final("blue"), Fail(-1)]
    pods.engines[service].hold = asyncio.Event()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    async with world.http.stream("POST", "/v1/chat/completions", json=body) as speaking:
        lines = speaking.aiter_lines()
        assert (await anext(lines)).startswith("data: ")
        for step in ("hung", "listed") if first == "hung" else ("listed", "hung"):
            await (say_hung(world, THREE[1]) if step == "hung" else pods.start(THREE[0]))
        assert "red" in await waiting
        assert pods.asked()[THREE[0]] == 1
        # What is being said goes on: should it be the one that hangs, silence ends it.
        pods.engines[service].hold.set()
        assert "blue" in "".join([line async for line in lines])


async def test_nobody_waits_where_every_pod_hangs(world: World, pods: Pods) -> None:
    await pods.start(THREE[0])
    await say_hung(world, THREE[0])
    response = await world.http.post("/process", json={"messages": [text(), image(png())]})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "engine_unavailable")
    assert "computes nothing" in response.json()["error"]["message"]
    assert pods.asked() == {}
    await until(lambda: not world.service.describe()["engine"]["ready"])
    await say_hung(world)
    assert (await world.answer(text(), image(png())))["answer"] == "red"
    await until(lambda: world.service.describe()["engine"]["ready"])


async def test_a_pod_that_left_finishes_what_it_says(world: World, pods: Pods) -> None:
    first, second = THREE[:2]
    await pods.start(first)
    pods.engines[first].hold = asyncio.Event()
    streaming = asyncio.create_task(plain(world, stream=True))
    await until(lambda: pods.of(first)["requests"] == 1)
    await pods.start(second)
    assert (pods.of(first)["listed"], pods.of(first)["requests"]) == (False, 1)
    await plain(world)
    pods.engines[first].hold.set()
    assert "red" in await streaming
    assert pods.asked() == {first: 1, second: 1}
    await until(lambda: len(pods.all()) == 1, "the pod to be let go")
    metrics = (await world.http.get("/metrics")).text
    assert f's1vl_engine_requests{{pod="{second}:{pods.port}"}} 0.0' in metrics
    assert first not in metrics


@pytest.mark.parametrize("stream", [False, True])
async def test_a_plain_request_goes_to_another_pod_first(world: World, pods: Pods, stream: bool) -> None:
    await pods.start(*THREE)
    pods.script(Fail(503), Fail(429), final("red"))
    shared = pods.engines[THREE[0]].script
    for engine in pods.engines.values():
        engine.script = shared
    assert "red" in await plain(world, stream=stream)
    assert pods.asked() == dict.fromkeys(THREE, 1)


async def test_the_service_is_asked_where_no_pod_is_known(world: World, pods: Pods) -> None:
    world.addresses = OSError("no server could be asked")
    await pods.start("127.0.0.9", listed=False)
    await plain(world)
    assert pods.seen() == {"127.0.0.9"}
    await pods.start(THREE[0])
    await plain(world)
    # Where DNS cannot be asked nobody says that the pod is gone.
    world.addresses = OSError("no server could be asked")
    await asyncio.wait_for(_rounds(world, 3), 30)
    await plain(world)
    assert pods.asked() == {"127.0.0.9": 1, THREE[0]: 2}
    world.addresses = []
    await until(lambda: pods.seen() == {"127.0.0.9"}, "the service in place of pods")
    await plain(world)
    assert pods.asked() == {"127.0.0.9": 2, THREE[0]: 2}


async def _rounds(world: World, count: int) -> None:
    asked, resolve = 0, world.service._engine_pods._resolve
    done = asyncio.Event()

    async def counting(host: str) -> list[str]:
        nonlocal asked
        assert host == HOST
        asked += 1
        if asked > count:
            done.set()
        return await resolve(host)

    world.service._engine_pods._resolve = counting
    await done.wait()
    world.service._engine_pods._resolve = resolve


async def test_all_pods_are_gone_and_come_back(world: World, pods: Pods) -> None:
    await pods.start(*THREE[:2])
    pods.script(code(CROP), code(CROP.replace("40", "50")), final("red"))
    for engine in pods.engines.values():
        engine.hold = asyncio.Event()
    job = asyncio.create_task(world.answer(text(), image(png())))
    await until(pods.asked)
    for address in THREE[:2]:
        await pods.stop(address)
    await until(lambda: "Connect call failed" in world.service.engine_problem)
    body = await world.tenants()
    assert body["engine"]["ready"] is False
    assert all(pod["avoided"] and pod["reason"] for pod in body["engine"]["pods"])
    await pods.start(THREE[2], listed=False)
    pods.by_turn(code(CROP), final("red"))
    await pods.list(THREE[2])
    result = await job
    assert (result["answer"], len(result["turns"])) == ("red", 2)
    assert result["turns"][0]["engine"]["attempts"] > 1
    assert [pictures(request) for request in pods.engines[THREE[2]].requests] == [[True], [False, True]]
    await until(lambda: not world.service.engine_problem, "the engine to be ready")


@pytest.mark.parametrize("where", [THREE[0], THREE[1]], ids=["same address", "another address"])
async def test_a_pod_that_is_replaced(world: World, pods: Pods, where: str) -> None:
    """Between two turns, with connections kept to the old one: no request fails, and the new one gets all pictures."""
    first = THREE[0]
    await pods.start(first, version="0.11.0", field_name="reasoning_content")
    await until(lambda: pods.of(first)["version"] == "0.11.0", "the version to be known")
    pods.by_turn(code(WAIT), code(CROP), final("red"))
    jobs = [asyncio.create_task(world.answer(text(), image(png()))) for _ in range(3)]
    outputs = await until(lambda: len(found := list(world.folder().glob(".s1vl/jobs/*/output"))) == 3 and found)
    await until(lambda: pods.of(first)["requests"] == 0 and pods.asked() == {first: 3}, "three cells")
    assert pods.engines[first].version_asked == 1
    await pods.stop(first)
    # No engine is back between two looks: its model alone takes longer to load.
    await until(lambda: pods.of(first)["avoided"], "the old one to be missed")
    await pods.start(where, listed=False, version="0.32.0")
    pods.by_turn("", code(CROP), final("red"))
    if where != first:
        world.addresses = [where]
    for output in outputs:
        (output / "go").touch()
    for answer in [await job for job in jobs]:
        assert answer["answer"] == "red"
        assert answer["turns"][1]["engine"]["attempts"] <= 3
    await until(lambda: pods.of(where)["version"] == "0.32.0", "the new one's version")
    assert pods.engines[where].version_asked == 1
    seen = Counter(tuple(pictures(request)) for request in pods.engines[where].requests)
    # At the same address the first request may still name the picture alone, and is then sent in full.
    assert seen[True,] == 3
    assert seen[False, True] == 3


async def test_versions_decide_the_name_of_the_thinking(world: World, pods: Pods) -> None:
    await pods.start(THREE[0], version="0.32.0", field_name="reasoning")
    await until(lambda: pods.of(THREE[0])["version"])
    events = await all_events(world, stream=True)
    assert any(name == "reasoning.delta" for name, _ in events)
    await pods.start(THREE[1], version="0.11.0", field_name="reasoning_content")
    await until(lambda: pods.of(THREE[1])["version"])
    events = await all_events(world, stream=True)
    assert any(name == "reasoning.delta" for name, _ in events)
    assert pods.engines[THREE[0]].version_asked == pods.engines[THREE[1]].version_asked == 1


async def test_a_request_that_engines_die_of_is_not_taken_to_all(world: World, pods: Pods) -> None:
    await pods.start(*THREE)
    pods.script(Fail(500, DEAD))
    refused = await world.ask(text(), image(png()))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
    assert sorted(pods.asked().values()) == [1, 1]


@pytest.mark.parametrize("step", [Fail(-2), Fail(0), Fail(500, DEAD), Fail(502)])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_pod_that_fails_in_the_middle_of_a_turn(world: World, pods: Pods, step: Fail, stream: bool) -> None:
    await pods.start(*THREE[:2])
    shared = [code(CROP), step, final("red")]
    for engine in pods.engines.values():
        engine.script = shared
    if stream:
        result = (await all_events(world, stream=True))[-1][1]
    else:
        result = await world.answer(text(), image(png()))
    assert result["answer"] == "red"
    assert [turn["engine"]["attempts"] for turn in result["turns"]] == [1, 2]
    assert sorted(pods.asked().values()) == [1, 2]
    [other] = [address for address, count in pods.asked().items() if count == 1]
    assert pictures(pods.engines[other].requests[0]) == [True, True]


class Forgetful:
    """An engine that answers each connection's first request and drops the connection at the second, without a word."""

    def __init__(self) -> None:
        self.connections = 0
        self.dropped = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answered = False
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length: ")[1].split("\r\n")[0]) if "content-length" in head else 0
                await reader.readexactly(length)
                chat = head.startswith("post")
                if chat and answered:
                    self.dropped += 1
                    writer.transport.abort()
                    return
                answered = answered or chat
                answer = (
                    b'{"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, '
                    b'"message": {"role": "assistant", "content": "red"}, "finish_reason": "stop"}], '
                    b'"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}'
                )
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(answer), answer)
                )


async def test_kept_connections_that_were_closed_do_not_count(
    world: World, pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_http, "RETRY_SECONDS", 0)  # Nothing else is tried again.
    engine = Forgetful()
    server = await asyncio.start_server(engine.serve, THREE[0], pods.port)
    try:
        await pods.list(THREE[0])
        for _ in range(6):
            await asyncio.gather(*(plain(world) for _ in range(4)))
        assert engine.dropped > 0
        assert not pods.of(THREE[0])["avoided"]
        metrics = (await world.http.get("/metrics")).text
        assert f's1vl_engine_retries_total{{cause="stale_connection"}} {engine.dropped}.0' in metrics
        assert metrics.count("s1vl_engine_retries_total{") == 1
    finally:
        server.close()
