"""`POST /process` with server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx
import pytest

from s1vl_orchestrator.api import streams
from s1vl_orchestrator.errors import ErrorCode
from s1vl_orchestrator.service import Service
from tests.component.orchestrator.conftest import World, code, final, image, png, results, text, until
from tests.component.orchestrator.documented import check_event
from tests.component.orchestrator.fakes import Fail

MARK = "from PIL import Image\nImage.new('RGB', (40, 50)).save(output_dir + '/made.png')\nprint(output_dir)"
SLOW = "import time\nopen(output_dir + '/started', 'w').close()\ntime.sleep(60)"


async def read_events(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """Events as (name, data); comments as ("", text)."""
    name = ""
    async for line in response.aiter_lines():
        if line.startswith(":"):
            yield "", line[1:].strip()
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            raw = line.removeprefix("data: ")
            data = json.loads(raw)
            check_event(name, raw, data)
            yield name, data


async def all_events(world: World, *parts: Any, query: str = "", **more: Any) -> list[tuple[str, Any]]:
    body = {"messages": list(parts) or [text(), image(png())], **more}
    async with world.http.stream("POST", f"/process{query}", json=body) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-request-id"]
        return [event async for event in read_events(response)]


def joined(events: list[tuple[str, Any]], name: str) -> str:
    shown = ""
    for event, data in events:
        if event == name:
            shown = data["text"] if data.get("restart") else shown + data["text"]
    return shown


@pytest.mark.parametrize("how", [{"query": "?stream=true"}, {"stream": True}], ids=["query", "body"])
async def test_the_events_of_a_job(world: World, how: dict[str, Any]) -> None:
    world.engine.script = [code(MARK, thought="I look at /mnt/data/images/x.\n</think>\n\n"), final("a red square")]
    events = await all_events(world, **how)
    names = [name for name, _ in events]
    order = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    assert order == [
        "turn.start", "reasoning.delta", "code", "exec.start", "exec.result", "image",
        "turn.start", "reasoning.delta", "answer.delta", "done",
    ]  # fmt: skip
    data = dict(events)
    assert names.count("reasoning.delta") > 2
    assert joined([event for event in events if event[1].get("turn") == 1], "reasoning.delta").strip() == (
        "I look at /data/images/x."
    )
    assert data["code"] == {"turn": 1, "code": MARK}
    done = data["done"]
    folder = f"/data/images/.s1vl/jobs/{done['id']}/output"
    assert data["exec.result"] | {"seconds": 0} == {
        "turn": 1, "status": "ok", "text": folder, "seconds": 0, "images": 1,
    }  # fmt: skip
    assert data["image"] == {"turn": 1, **done["images"][0]}
    assert data["image"]["path"] == f"{folder}/made.png"
    assert joined(events, "answer.delta") == done["answer"] == "a red square"
    world.assert_clean(jobs=1)


SAME: list[list[Any]] = [
    [final("red")],
    ["No tags.\n</think>\n\nIt is red."],
    [code("print(1)"), "x\n</think>\n\nWell.\n<answer>one\ntwo</answer>\n"],
    ["never closed, the answer is red"],
    ["x\n</think>\n\n<answer>first</answer>\nno:\n<answer>second</answer>"],
    ['x\n</think>\n\n<tool_call>{"arguments": </tool_call>', final("none")],
    ["x\n</think>\n\n<answer>see /mnt/data/images/a.png</answer>"],
]


@pytest.mark.parametrize("script", SAME)
async def test_the_same_result_streamed_as_not(world: World, script: list[Any]) -> None:
    path = world.put("x.png", png())
    world.engine.script = list(script)
    whole = await world.answer(text(), paths=[path])
    world.engine.script = list(script)
    world.engine.piece = 3
    events = await all_events(world, text(), image_path_list=[path], stream=True)
    streamed = events[-1][1]
    assert joined(events, "answer.delta") == streamed["answer"] == whole["answer"]
    assert "/mnt/data" not in json.dumps(events)
    for result in (whole, streamed):
        del result["id"], result["usage"]
        for turn in result["turns"]:
            del turn["engine"]
            if turn["cell"]:
                del turn["cell"]["seconds"]
    assert streamed == whole


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        ({"messages": [text()]}, {}, ErrorCode.NO_IMAGE),
        ({"messages": [text(), image(b"no picture")]}, {}, ErrorCode.INVALID_IMAGE),
        ({"messages": [text()], "image_path_list": ["/data/images/absent.png"]}, {}, ErrorCode.IMAGE_NOT_FOUND),
        ({"messages": [text(), image(png())]}, {"X-API-Key": "wrong"}, ErrorCode.UNAUTHORIZED),
    ],
)
async def test_an_error_before_the_first_event_has_its_status(
    world: World, body: dict[str, Any], headers: dict[str, str], expected: ErrorCode
) -> None:
    response = await world.http.post("/process?stream=true", json=body, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (expected.status, expected.value)
    world.assert_clean()


async def test_a_stream_that_is_not_a_truth_value(world: World) -> None:
    response = await world.http.post("/process?stream=perhaps", json={})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("step", [Fail(503), Fail(0)], ids=["503", "broken before the first text"])
async def test_a_failure_before_the_first_text_is_mended(world: World, step: Fail) -> None:
    world.engine.script = [step, final("red")]
    events = await all_events(world, stream=True)
    assert [name for name, _ in events].count("turn.start") == 1
    assert events[-1][1]["turns"][0]["engine"]["attempts"] == 2


async def test_a_turn_that_breaks_off_while_thinking_is_said_again(world: World) -> None:
    world.engine.script = [Fail(-2), Fail(-2), final("red")]
    events = await all_events(world, stream=True)
    starts = [at for at, (name, _) in enumerate(events) if name == "turn.start"]
    assert [events[at][1] for at in starts] == [{"turn": 1}, *[{"turn": 1, "restart": True}] * 2]
    thoughts = [joined(events[at:end], "reasoning.delta") for at, end in pairwise([*starts, len(events)])]
    assert [thought.strip() for thought in thoughts] == ["I am thinking", "I am thinking", "Now I know."]
    assert events[-1][1]["answer"] == joined(events, "answer.delta") == "red"
    assert events[-1][1]["turns"][0]["engine"]["attempts"] == 3
    world.assert_clean()


@pytest.mark.parametrize(
    "script", [[Fail(-2)] * 3, [Fail(-3, "x\n</think>\n\n<answer>half an answer")]], ids=["three times", "an answer"]
)
async def test_what_was_shown_is_not_said_again(world: World, script: list[Fail]) -> None:
    """A stream that breaks too often, or in its answer, ends in an error; one that nobody sees is simply repeated."""
    world.engine.script = [*script, final("red")]
    events = await all_events(world, stream=True)
    assert events[-1][0] == "error"
    assert (events[-1][1]["status"], events[-1][1]["error"]["code"]) == (503, "engine_unavailable")
    assert len(world.engine.requests) == len(script)
    world.assert_clean()
    world.engine.script = [*script, final("red")]
    assert (await world.answer(text(), image(png())))["answer"] == "red"


async def test_an_engine_that_fails_in_a_later_turn(world: World) -> None:
    world.engine.script = ["x\n</think>\n\nA first idea.\n<code>\nprint(1)\n</code>", Fail(500, "boom")]
    events = await all_events(world, stream=True)
    assert events[-1][0] == "done"
    assert (events[-1][1]["stop_reason"], events[-1][1]["answer"]) == ("engine_error", "A first idea.")
    assert joined(events, "answer.delta") == "A first idea."


async def test_a_defect_in_the_middle_ends_the_stream_with_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(_: list[dict[str, Any]]) -> str:
        from s1vl_orchestrator import answers

        monkeypatch.setattr(answers, "render", None)
        return final("red")

    world.engine.script = [defect]
    events = await all_events(world, stream=True)
    assert (events[-1][0], events[-1][1]["error"]["code"]) == ("error", "internal_error")


async def test_heartbeats(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the first event; from then on errors come as events."""
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.2)
    beats = 0
    world.engine.script = [code("import time; time.sleep(1)"), final("red")]
    for name, _ in await all_events(world, stream=True):
        beats += name == ""
    assert beats >= 2

    limits = world.config["tenants"][0]["limits"]
    limits.update(concurrentRequests=1)
    world.write_config()
    await until(lambda: world.service.snapshot.config.tenants[0].limits.concurrent_requests == 1)  # type: ignore[union-attr]
    world.engine.script = [Fail(-1)]
    running = asyncio.create_task(world.ask(text(), image(png())))
    await until(lambda: world.service.tenants["chem"].admission.running)
    body = {"messages": [text()], "image_path_list": ["/data/images/absent.png"]}
    async with world.http.stream("POST", "/process?stream=true", json=body) as response:
        assert response.status_code == 200
        running.cancel()
        events = [event async for event in read_events(response)]
    assert events[0] == ("", "keep-alive")
    assert (events[-1][0], events[-1][1]["status"]) == ("error", 404)


@pytest.mark.parametrize(("step", "moment"), [(Fail(-1), "reasoning.delta"), (code(SLOW), "exec.start")])
async def test_a_client_that_hangs_up_ends_its_job(world: World, step: Any, moment: str) -> None:
    world.engine.script = [step]
    body = {"messages": [text(), image(png())], "stream": True}
    async with world.http.stream("POST", "/process", json=body) as response:
        async for name, _ in read_events(response):
            if name == moment:
                if name == "exec.start":
                    await until(lambda: list(world.folder().glob(".s1vl/jobs/*/output/started")), "the cell to run")
                break
    chem = world.service.tenants["chem"]
    await until(lambda: chem.admission.running == 0 and not world.service.active, "the place to be free", 5)
    await until(lambda: not world.sandboxes["chem"].sessions, "the session to go", 5)
    await until(lambda: not world.jobs() and not world.copies(), "the files to go", 5)
    if moment == "reasoning.delta":
        await until(lambda: world.engine.aborted, "the engine's request to be aborted", 5)


async def test_a_client_that_does_not_read_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SEND_SECONDS", 0.5)
    world.engine.script = ["word " * 3_000_000]
    world.engine.piece = 100_000
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = json.dumps({"messages": [text(), image(png())], "stream": True}).encode()
    writer.write(b"POST /process HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"\r\n\r\n")
    await until(lambda: not world.service.active, "the job to end")
    writer.close()
    world.assert_clean()


async def test_an_early_end_is_counted(world: World) -> None:
    """A turn that goes on behind its code is left at once, with the engine's numbers where it gives them."""
    for counts, source in ((True, "engine"), (False, "estimate")):
        world.engine.counts_while_streaming = counts
        world.engine.obey_stop = False
        world.engine.aborted = 0
        world.engine.piece = 10
        world.engine.script = [code("print(1)") + "x" * 4000, lambda m: final(results(m)[-1].split()[1])]
        result = await world.answer(text(), image(png()))
        first = result["turns"][0]["engine"]
        assert first["counted_by"] == source
        said = len(code("print(1)"))
        assert said // 10 - 1 <= first["completion_tokens"] <= said // 10 + 3
        assert first["prompt_tokens"] > 300 if source == "estimate" else first["prompt_tokens"] == 1000
        total = sum(turn["engine"]["completion_tokens"] for turn in result["turns"])
        assert result["usage"]["completion_tokens"] == total
        assert world.engine.aborted == 1


async def test_characters_that_some_take_for_line_ends(world: World) -> None:
    strange = "one\u2028two\x85three\u2029four\x1cfive \U0001f600 \u6c34"
    world.engine.script = [f"{strange}</think><answer>{strange}</answer>"]
    events = await all_events(world, stream=True)
    assert joined(events, "reasoning.delta") == strange
    assert events[-1][1]["answer"] == strange


async def test_the_deadline_holds_in_a_stream(world: World) -> None:
    world.engine.script = [Fail(-1), final("in time")]
    events = await all_events(world, stream=True, deadline_seconds=3)
    assert (events[-1][1]["stop_reason"], joined(events, "answer.delta")) == ("deadline", "in time")
    world.engine.script = [Fail(-1)]
    events = await all_events(world, stream=True, deadline_seconds=1)
    assert (events[-1][0], events[-1][1]["stop_reason"], events[-1][1]["answer"]) == ("done", "deadline", None)
    await until(lambda: world.engine.aborted == 3, "the engine's requests to be aborted")


async def test_draining_lets_streams_end(world: World) -> None:
    world.engine.script = [code("import time; time.sleep(1); print(1)"), final("finished")]
    streaming = asyncio.create_task(all_events(world, stream=True))
    await until(lambda: world.service.active)
    await world.service.drain(60)
    assert (await streaming)[-1][1]["answer"] == "finished"
    service: Service = world.service
    assert service.draining
