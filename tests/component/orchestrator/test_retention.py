"""What is kept of jobs' folders, by the service as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from s1vl_orchestrator import retention
from s1vl_orchestrator.service import Service
from s1vl_orchestrator.sources import FileSource
from tests.component.orchestrator.conftest import World, code, final, image, png, text, until

CROP = "image_1.resize((30, 20)).save(output_dir + '/crop.png')"


def follow(world: World, **rules: int) -> None:
    world.config["images"]["retention"] = rules
    world.write_config()


def removed(world: World) -> float:
    sample = world.service.metrics.registry.get_sample_value
    return sample("s1vl_retention_removed_jobs_total", {"tenant": "chem"}) or 0


def aged(folder: Path) -> bool:
    return time.time() - folder.stat().st_ctime > 1.1


@pytest.mark.parametrize("rules", [{"maxAgeSeconds": 1}, {"maxAgeSeconds": 0, "maxBytesPerTenant": 1}])
async def test_a_new_rule_takes_what_is_over_and_leaves_what_runs(world: World, rules: dict[str, int]) -> None:
    world.engine.script = [code(CROP), final("red")]
    old = await world.answer(text(), image(png()))
    [url] = [made["url"] for made in old["images"]]
    go_on = asyncio.Event()

    def hold(_: object) -> str:
        world.engine.hold = go_on
        return final("blue")

    world.engine.script = [code(CROP), hold]
    running = asyncio.create_task(world.answer(text(), image(png("blue"))))
    try:
        await until(lambda: world.engine.hold, "the job to have made something")
        [busy] = set(world.jobs()) - {old["id"]}
        folders = [world.folder() / ".s1vl/jobs" / name for name in (old["id"], busy)]
        await until(lambda: all(map(aged, folders)), "both to be older than the rule")
        assert (await world.http.get(url)).status_code == 200
        follow(world, **rules)
        await until(lambda: removed(world) == 1, "the round")
        assert world.jobs() == [busy]
        assert (folders[1] / "output/crop.png").is_file()
        assert (await world.http.get(url)).status_code == 404
    finally:
        go_on.set()
        answer = await running
    assert (answer["id"], answer["answer"]) == (busy, "blue")
    assert (await world.http.get(answer["images"][0]["url"])).status_code == 200


def descriptors(folder: Path) -> list[Path]:
    """What this process has open below a folder."""
    found = []
    for item in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found.append(item.readlink())
    return [target for target in found if target.is_relative_to(folder)]


async def test_a_service_that_ends_during_a_round_leaves_the_rest_to_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = world.folder() / ".s1vl/jobs"
    for number in range(4):
        output = jobs / f"{number:024x}" / "output"
        output.mkdir(parents=True)
        (output.parent / "done").touch()
        for name in range(400):
            (output / f"{name}.png").write_bytes(b"x")
    began, go_on = threading.Event(), threading.Event()
    keep = retention.keep

    def slow(folder: Path, *args: Any) -> Generator[None, None, None]:
        with contextlib.closing(keep(folder, *args)) as entries:
            for at, _ in enumerate(entries):
                if folder == world.folder() and at == 900:
                    began.set()
                    assert go_on.wait(60)
                yield

    monkeypatch.setattr(retention, "keep", slow)
    follow(world, maxAgeSeconds=0, maxBytesPerTenant=1)
    try:
        await until(began.is_set, "the round")
        assert descriptors(jobs)
        closing = asyncio.create_task(world.service.close())
        await until(lambda: all(task.cancelling() or task.done() for task in world.service._tasks), "the end to begin")
    finally:
        go_on.set()
    async with asyncio.timeout(60):
        await closing
    assert descriptors(jobs) == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert list(jobs.iterdir())
    monkeypatch.undo()
    after = Service(FileSource(world.config_file, world.config_file.parent / "secrets"), resolve=world.resolve)
    await after.start()
    try:
        await until(lambda: not list(jobs.iterdir()), "the next round")
    finally:
        await after.close()
