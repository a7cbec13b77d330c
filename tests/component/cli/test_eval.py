"""Whole evaluations: asked of the real orchestrator, interrupted, killed, refused, and gone on with."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.component.cli.conftest import (
    MODEL,
    Scripted,
    completion,
    evaluate,
    finish,
    records,
    refusal,
    start,
)
from tests.component.orchestrator.conftest import World, code, final, results, until
from tests.component.orchestrator.fakes import Fail
from tests.component.orchestrator.test_simulator import marked_picture
from tests.unit.cli.conftest import encoded, picture, row, write


def hrbench(folder: Path) -> Path:
    """Two questions in four rotations each; all but one rotation of the second is answered rightly."""
    rows = []
    for number, category in enumerate(("single", "cross")):
        for cycle, letter in enumerate("ABCD"):
            said = "A" if (category, cycle) == ("cross", 3) else letter
            index = 4 * number + cycle
            image = encoded(picture("blue")) if cycle == 0 else str(4 * number)
            more = {"cycle_category": cycle, "category": category, "answer": letter, "image": image}
            rows.append(row(index, question=f"Say {said}.", **more))
    return write(folder / "hr.tsv", rows)


def obey(messages: list[dict[str, Any]]) -> str:
    """A model that runs code once and then says the letter that it is asked for."""
    if not results(messages):
        return code("print(image_1.size)")
    said = re.findall(r"Say ([A-D])\.", str(messages))
    return final(f"The answer is {said[-1]}.")


async def test_thinking_with_images(world: World, tmp_path: Path) -> None:
    """Four rotations of HRBench, the picture given once; more asked at once than the tenant may run."""
    world.engine.script = [obey]
    data = hrbench(tmp_path)
    arguments = (data, "--base-url", world.url, "--mode", "thinking-with-images", "--concurrency", 6)
    outcome = await evaluate(*arguments, "--json", folder=tmp_path, key="key-chem")
    assert outcome.status == 0, outcome.err
    report = outcome.report
    assert report["settings"] == {"model": MODEL, "mode": "thinking-with-images", "max_tokens": None}
    assert (report["wanted"], report["answered"], report["failed"], report["accuracy"]) == (8, 8, 0, 0.875)
    found = {(score["part"], score["name"]): score["accuracy"] for score in report["scores"]}
    assert found[("Average", "Overall")] == 0.875
    assert found[("Average", "single")] == 1
    assert found[("Average", "cross")] == 0.75
    assert [found[(cycle, "cross")] for cycle in "0123"] == [1, 1, 1, 0]
    assert report["means"]["turns"] == 2
    assert report["means"]["prompt_tokens"] == 2 * world.engine.prompt_tokens
    assert report["stop_reasons"] == {"answer": 8}
    assert re.search(r"reading hr\.tsv \([\d,]+ bytes\)|reading hr\.tsv \(\d+\.\d kB\)", outcome.err)
    assert "asking 8 of 8 questions" in outcome.err
    assert "8/8" in outcome.err
    assert len(world.engine.requests) == 16
    kept = records(tmp_path / "hr.results.jsonl")
    assert {record["index"] for record in kept} == {str(number) for number in range(8)}
    wrong = next(record for record in kept if not record["correct"])
    assert (wrong["index"], wrong["prediction"], wrong["extracted"]) == ("7", "The answer is A.", "A")
    assert (wrong["category"], wrong["turns"], wrong["stop_reason"]) == ("cross", 2, "answer")
    world.assert_clean()

    # All is there: nothing is asked, and a person sees a table.
    again = await evaluate(*arguments, folder=tmp_path, key="key-chem")
    assert again.status == 0
    assert len(world.engine.requests) == 16
    assert re.search(r"Average\s*│ Overall\s*│\s*8 │\s*7 │\s*87\.5", again.out)
    assert "8 of 8 answered, 0 failed" in again.out
    assert "2.0 turns" in again.out

    # The same file cannot take the answers of the other mode.
    other = await evaluate(data, "--base-url", world.url, "--mode", "reasoning", folder=tmp_path, key="key-chem")
    assert other.status == 2
    assert "has other settings: mode is thinking-with-images, not reasoning" in other.err


async def test_plain_reasoning(world: World, tmp_path: Path) -> None:
    world.engine.script = [lambda messages: f"I see.\n</think>\n\n{re.findall(r'Say ([A-D])', str(messages))[-1]}"]
    data, out = hrbench(tmp_path), tmp_path / "plain.jsonl"
    outcome = await evaluate(
        data, "--base-url", world.url, "--mode", "reasoning", "--out", out, "--max-tokens", 50, "--json",
        folder=tmp_path, key="key-chem",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert (outcome.report["accuracy"], outcome.report["means"]["turns"]) == (0.875, None)
    assert len(world.engine.requests) == 8
    assert {request["max_tokens"] for request in world.engine.requests} == {50}
    assert not any("image_1" in code for code in world.sandboxes["chem"].codes)


async def test_the_simulator_finds_the_mark(world: World, simulator: httpx.AsyncClient, tmp_path: Path) -> None:
    """A real job: the picture is searched, the crop is looked at, the answer's words are matched to an option."""
    colours = {letter: f"The small mark is {name}." for letter, name in zip("ABCDEF", _COLOURS, strict=True)}
    question = "What is the colour of the small mark?"
    values = {**colours, "answer": "D", "image": encoded(marked_picture())}
    data = write(tmp_path / "marks.tsv", [row(0, question=question, **values), row(1, question=question, **values)])
    outcome = await evaluate(data, "--base-url", world.url, "--json", folder=tmp_path, key="key-chem")
    assert outcome.status == 0, outcome.err
    kept = records(tmp_path / "marks.results.jsonl")
    assert [record["extracted"] for record in kept] == ["D", "D"], kept
    assert outcome.report["accuracy"] == 1
    assert outcome.report["means"]["turns"] >= 2
    seen = (await simulator.get("/sim/requests", params={"limit": 100})).json()
    assert sum(record["usage"]["prompt_tokens"] for record in kept) == sum(one["prompt_tokens"] for one in seen)


_COLOURS = ("green", "blue", "yellow", "red", "white", "black")


async def test_a_tenant_that_may_do_little(world: World, tmp_path: Path) -> None:
    """Refused with 429 again and again, every question is answered in the end."""
    world.engine.script = [obey]
    world.config["tenants"][0]["limits"] = {"concurrentRequests": 1, "queuedRequests": 0, "requestsPerMinute": 0}
    world.write_config()
    await until(lambda: world.service.snapshot.config.tenants[0].limits.queued_requests == 0)  # type: ignore[union-attr]
    arguments = (hrbench(tmp_path), "--base-url", world.url, "--concurrency", 3, "--limit", 3, "--json")
    outcome = await evaluate(*arguments, folder=tmp_path, key="key-chem")
    assert outcome.status == 0, outcome.err
    assert (outcome.report["answered"], outcome.report["failed"], outcome.report["accuracy"]) == (3, 0, 1)


async def test_interrupted_and_gone_on_with(world: World, tmp_path: Path) -> None:
    world.engine.script = [final("A"), final("B"), Fail(-1)]
    data, out = hrbench(tmp_path), tmp_path / "hr.results.jsonl"
    arguments = (data, "--base-url", world.url, "--concurrency", 1)
    process = await start(*arguments, folder=tmp_path, key="key-chem")
    await until(lambda: len(world.engine.requests) == 3, "two answers and a question")
    process.send_signal(signal.SIGINT)
    outcome = await finish(process)
    assert outcome.status == 130
    assert "Traceback" not in outcome.err
    assert "2 of 8 answered, 0 failed, 6 not asked" in outcome.out
    assert [record["index"] for record in records(out)] == ["0", "1"]
    # The server was told: the job that nobody waits for any more is over.
    await until(lambda: world.engine.aborted == 1, "the engine's request is aborted")

    world.engine.script = [obey]
    outcome = await evaluate(*arguments, "--json", folder=tmp_path, key="key-chem")
    assert outcome.status == 0, outcome.err
    assert "asking 6 of 8 questions" in outcome.err
    assert outcome.report["accuracy"] == 0.875
    assert [record["index"] for record in records(out)] == [str(number) for number in range(8)]
    await until(lambda: world.jobs() == [] and world.copies() == [], "nothing is left")


async def test_killed_in_the_middle_of_a_line(scripted: Scripted, tmp_path: Path) -> None:
    data, out = hrbench(tmp_path), tmp_path / "hr.results.jsonl"
    scripted.script = [completion("A"), completion("B"), _never]
    process = await start(data, "--base-url", scripted.url, "--concurrency", 1, folder=tmp_path)
    await until(lambda: len(scripted.seen) == 3, "two answers and a question")
    process.kill()
    await process.wait()
    with out.open("ab") as file:
        file.write(out.read_bytes()[-40:-3])
    scripted.script = [completion("C")]
    outcome = await evaluate(data, "--base-url", scripted.url, "--json", folder=tmp_path)
    assert outcome.status == 0, outcome.err
    assert len(scripted.seen) == 3 + 6
    assert outcome.report["answered"] == 8
    assert len(records(out)) == 8


async def _never(body: dict[str, Any]) -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_server_that_is_busy_in_between(scripted: Scripted, tmp_path: Path) -> None:
    busy = [refusal(status, **{"Retry-After": "0"}) for status in (503, 429, 503, 502)]
    scripted.script = [completion("A"), *busy, completion("B"), busy[0], completion("C")]
    outcome = await evaluate(
        hrbench(tmp_path), "--base-url", scripted.url, "--concurrency", 1, "--json", folder=tmp_path
    )
    assert outcome.status == 0, outcome.err
    assert (outcome.report["answered"], outcome.report["failed"]) == (8, 0)
    assert len(scripted.seen) == 8 + 5


async def test_what_fails_is_told_apart_and_asked_again(world: World, tmp_path: Path) -> None:
    """Of three pictures one is broken, and one is not a picture at all; they count neither as right nor as wrong."""
    world.engine.script = [obey]
    broken = encoded(picture()[:40] + b"?" * 100)
    rows = [
        row(0, question="Say A."),
        row(1, image=broken),
        row(2, image=encoded(b"x" * 90)),
        row(3, question="Say B."),
    ]
    data, out = write(tmp_path / "some.tsv", rows), tmp_path / "some.results.jsonl"
    outcome = await evaluate(data, "--base-url", world.url, folder=tmp_path, key="key-chem")
    assert outcome.status == 1
    assert "2 of 4 answered, 2 failed (run it again to ask them again)" in outcome.out
    assert re.search(r"Overall\s*│\s*2 │\s*1 │\s*50\.0", outcome.out)
    failed = {record["index"]: record for record in records(out) if "failed" in record}
    assert failed["1"]["status"] == 400
    assert "invalid_image" in failed["1"]["failed"]
    assert failed["2"]["status"] is None
    assert "its picture: not a JPEG" in failed["2"]["failed"]
    asked = len(world.engine.requests)

    again = await evaluate(data, "--base-url", world.url, "--json", folder=tmp_path, key="key-chem")
    assert again.status == 1
    assert "asking 2 of 4 questions" in again.err
    assert len(world.engine.requests) == asked
    assert (again.report["answered"], again.report["failed"], again.report["accuracy"]) == (2, 2, 0.5)


async def test_a_failure_that_passes(scripted: Scripted, tmp_path: Path) -> None:
    scripted.script = [refusal(500), completion("A")]
    arguments = (hrbench(tmp_path), "--base-url", scripted.url, "--concurrency", 1, "--limit", 2, "--json")
    assert (await evaluate(*arguments, folder=tmp_path)).report["failures"] == {"500: x scripted": 1}
    outcome = await evaluate(*arguments, folder=tmp_path)
    assert (outcome.status, outcome.report["answered"], outcome.report["failures"]) == (0, 2, {})


async def test_a_limit_can_be_raised(scripted: Scripted, tmp_path: Path) -> None:
    arguments = (hrbench(tmp_path), "--base-url", scripted.url, "--json")
    first = await evaluate(*arguments, "--limit", 3, folder=tmp_path)
    assert (first.status, first.report["wanted"], len(scripted.seen)) == (0, 3, 3)
    second = await evaluate(*arguments, folder=tmp_path)
    assert (second.status, second.report["wanted"], len(scripted.seen)) == (0, 8, 8)
    third = await evaluate(*arguments, "--limit", 1, folder=tmp_path)
    assert (third.status, third.report["wanted"], third.report["answered"], len(scripted.seen)) == (0, 1, 1, 8)


async def test_a_server_that_is_gone_ends_the_run(scripted: Scripted, tmp_path: Path) -> None:
    scripted.script = [completion("A"), refusal(503, "engine_unavailable", "loading", **{"Retry-After": "3600"})]
    outcome = await evaluate(hrbench(tmp_path), "--base-url", scripted.url, "--concurrency", 1, folder=tmp_path)
    assert outcome.status == 1
    assert "1 of 8 answered, 1 failed (run it again to ask them again), 6 not asked" in outcome.out
    assert "Failed 1 times: 503: engine_unavailable loading" in outcome.out
    assert "stopped: no question is answered any more" in outcome.err
    assert len(scripted.seen) == 2


async def test_a_key_that_is_refused(world: World, tmp_path: Path) -> None:
    data = hrbench(tmp_path)
    outcome = await evaluate(data, "--base-url", world.url, folder=tmp_path, key="wrong")
    assert (outcome.status, outcome.out) == (2, "")
    assert "/v1/models answers 401: unauthorized" in outcome.err
    named = await evaluate(data, "--base-url", world.url, "--model", MODEL, folder=tmp_path, key="wrong")
    assert (named.status, named.out) == (2, "")
    assert "/v1/chat/completions answers 401: unauthorized" in named.err
    assert "wrong" not in named.err.replace("wrong key", "")


async def test_a_key_that_is_taken_away(scripted: Scripted, tmp_path: Path) -> None:
    """What was answered before is reported."""
    scripted.script = [completion("A"), refusal(401, "unauthorized", "no longer")]
    outcome = await evaluate(hrbench(tmp_path), "--base-url", scripted.url, "--concurrency", 1, folder=tmp_path)
    assert outcome.status == 2
    assert "1 of 8 answered, 0 failed, 7 not asked" in outcome.out
    assert "error:" in outcome.err
    assert "answers 401: unauthorized no longer" in outcome.err


async def test_wrong_usage(scripted: Scripted, tmp_path: Path) -> None:
    data = hrbench(tmp_path)
    server = ("--base-url", scripted.url)
    (tmp_path / "notes.txt").write_text("precious\n")
    for arguments, message in (
        (("none.tsv", *server), "none.tsv cannot be read: No such file or directory"),
        ((data, *server, "--out", "none/x.jsonl"), "none/x.jsonl cannot be written"),
        ((data, *server, "--out", "notes.txt"), "notes.txt is not a file of results"),
        ((data, "--base-url", "localhost:1"), "is no URL of http or https"),
        ((data, *server, "--mode", "fast"), "fast"),
        ((data, *server, "--concurrency", "0"), "concurrency"),
        ((data, *server, "--frobnicate"), "frobnicate"),
        ((), "dataset"),
    ):
        outcome = await evaluate(*arguments, folder=tmp_path)
        assert outcome.status == 2, arguments
        assert message in " ".join(outcome.err.split()), arguments
        assert "Traceback" not in outcome.err
    assert (tmp_path / "notes.txt").read_text() == "precious\n"
    assert scripted.seen == []


async def test_another_data_set_in_the_same_place(scripted: Scripted, tmp_path: Path) -> None:
    data = hrbench(tmp_path)
    assert (await evaluate(data, "--base-url", scripted.url, folder=tmp_path)).status == 0
    data.write_bytes(data.read_bytes().replace(b"Say A.", b"Say B."))
    outcome = await evaluate(data, "--base-url", scripted.url, folder=tmp_path)
    assert outcome.status == 2
    assert "hr.results.jsonl belongs to another data set: hr.tsv (8 questions, sha256" in outcome.err


@pytest.mark.parametrize("arguments", [("version",), ("--help",)])
async def test_other_commands(arguments: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "s1vl_cli", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert re.search(rb"^\d+\.\d+\.\d+$" if arguments == ("version",) else rb"eval .*accuracy", out.strip())
