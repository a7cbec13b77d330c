"""What is kept of jobs' folders, whatever their code left in them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from s1vl_orchestrator import files
from s1vl_orchestrator.config import Config, Retention
from s1vl_orchestrator.job_folders import SURELY_OVER_SECONDS, Found, keep
from s1vl_orchestrator.paths import DONE, ENGINE_COPIES, JOBS, Relative
from s1vl_orchestrator.retention import Retention as Retainer
from s1vl_orchestrator.telemetry import Metrics

WEEK = 7 * 24 * 3600
SIZE = 256 * 1024


def job(tenant: Path, number: int, *, done: bool = True, size: int = SIZE) -> Path:
    folder = tenant / JOBS / f"{number:024x}"
    (folder / "output").mkdir(parents=True)
    (folder / "output/x.png").write_bytes(os.urandom(size))
    if done:
        (folder / DONE).touch()
    return folder


def look(tenant: Path, age: int = 0, most: int = 0, later: float = 0) -> Found:
    found = Found()
    for _ in keep(tenant, Retention(max_age_seconds=age, max_bytes_per_tenant=most), time.time() + later, found):
        pass
    return found


def left(tenant: Path) -> list[int]:
    return sorted(int(item.name, 16) for item in (tenant / JOBS).iterdir())


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    job(tmp_path, 1)
    assert look(tmp_path, age=WEEK, later=WEEK - 60).removed == 0
    found = look(tmp_path, age=WEEK, later=WEEK + 60)
    assert (found.removed, found.kept, found.kept_bytes, found.failures) == (1, 0, 0, 0)
    assert found.removed_bytes >= SIZE
    assert left(tmp_path) == []


def test_then_the_oldest_until_the_rest_is_small_enough(tmp_path: Path) -> None:
    for number in (3, 1, 2):
        folder = job(tmp_path, number)
        before = folder.stat().st_ctime_ns
        while not (folder / "output").stat().st_ctime_ns or time.time_ns() <= before + 20_000_000:
            pass  # The volume's clock moves in ticks.
    found = look(tmp_path, most=int(2.5 * SIZE))
    assert (found.removed, found.kept) == (1, 2)
    assert left(tmp_path) == [1, 2]
    assert 2 * SIZE <= found.kept_bytes <= 2.5 * SIZE


def test_a_job_that_runs_is_never_touched(tmp_path: Path) -> None:
    job(tmp_path, 1, done=False)
    found = look(tmp_path, age=1, most=1, later=SURELY_OVER_SECONDS - 60)
    assert (found.removed, found.kept) == (0, 1)
    # Its instance was killed: no job runs for so long.
    assert look(tmp_path, age=1, later=SURELY_OVER_SECONDS + 60).removed == 1


def test_a_date_that_code_has_set_counts_for_nothing(tmp_path: Path) -> None:
    for number, date in ((1, 0), (2, 2**33)):
        os.utime(job(tmp_path, number), (date, date))
    assert look(tmp_path, age=WEEK).removed == 0
    assert look(tmp_path, age=WEEK, later=WEEK + 60).removed == 2


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    job(tmp_path, 1)
    assert look(tmp_path, later=1000 * WEEK).removed == 0


def test_what_is_no_jobs_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/output").mkdir(parents=True)
    (tmp_path / JOBS).mkdir(parents=True)
    (tmp_path / JOBS / "mine").mkdir()
    (tmp_path / JOBS / f"{1:024x}").symlink_to(tmp_path / "elsewhere")
    (tmp_path / JOBS / f"{2:024x}").touch()
    assert look(tmp_path, age=1, most=1, later=1000 * WEEK).removed == 0
    assert (tmp_path / "elsewhere/output").is_dir()
    assert len(list((tmp_path / JOBS).iterdir())) == 3


def test_a_tenant_without_jobs_and_a_link_in_their_place(tmp_path: Path) -> None:
    assert look(tmp_path, age=1) == Found()
    (tmp_path / "other").mkdir()
    (tmp_path / ".s1vl").symlink_to("other")
    with pytest.raises(NotADirectoryError):
        look(tmp_path, age=1)


def test_a_file_of_a_petabyte_that_takes_nothing_pushes_nobody_out(tmp_path: Path) -> None:
    job(tmp_path, 1)
    with (job(tmp_path, 2) / "output/x.png").open("r+b") as file:
        file.truncate(2**43)
    for number in range(50):
        os.link(tmp_path / JOBS / f"{1:024x}/output/x.png", tmp_path / JOBS / f"{1:024x}/output/{number}.png")
    assert look(tmp_path, most=4 * SIZE).removed == 0


def links(output: Path) -> None:
    (output / "file").symlink_to("/etc/passwd")
    (output / "folder").symlink_to("../../../../kept")
    os.mkfifo(output / "fifo")


def deep(output: Path) -> None:
    fd = os.open(output, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def wide(output: Path) -> None:
    for number in range(3000):
        (output / f"{number}").touch()


def tree(output: Path) -> None:
    for number in range(300):
        (output / f"a/{number}/b/{number % 7}/c").mkdir(parents=True)


def nameless(output: Path) -> None:
    (output / os.fsdecode(b"\xff\n")).mkdir()


@pytest.mark.parametrize("fill", [links, deep, wide, tree, nameless])
def test_whatever_code_leaves_is_removed_and_nothing_else(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/x").touch()
    fill(job(tmp_path, 1) / "output")
    found = look(tmp_path, age=1, later=60)
    assert (found.removed, found.failures, left(tmp_path)) == (1, 0, [])
    assert (tmp_path / "kept/x").exists()


LOCKED = """
    import os, sys
    from s1vl_orchestrator.removal import removal
    parent = os.open(sys.argv[1], os.O_RDONLY)
    if os.getuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    os.makedirs("/proc/self/fd/%d/job/a/b/c" % parent)
    for path in ("job/a/b/c", "job/a/b", "job/a", "job"):
        os.chmod("/proc/self/fd/%d/%s" % (parent, path), 0)
    for _ in removal(parent, "job"):
        pass
    assert not os.listdir(parent)
"""


def test_folders_that_are_locked_are_unlocked(tmp_path: Path) -> None:
    """As any user but root, to whom nothing is locked."""
    tmp_path.chmod(0o777)
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(LOCKED), tmp_path], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()


def test_several_instances_may_look_at_once(tmp_path: Path) -> None:
    for number in range(20):
        tree(job(tmp_path, number) / "output")
    founds = [Found() for _ in range(3)]
    rules = Retention(max_age_seconds=1, max_bytes_per_tenant=1)
    looks = [keep(tmp_path, rules, time.time() + 60, found) for found in founds]
    while looks:
        looks = [one for one in looks if next(one, looks) is not looks]
    assert left(tmp_path) == [] or look(tmp_path, age=1, later=60).failures == 0
    assert left(tmp_path) == []
    assert sum(found.removed for found in founds) == 20
    assert sum(found.failures for found in founds) == 0


def test_what_an_instance_left_half_removed_is_removed(tmp_path: Path) -> None:
    wide(job(tmp_path, 1) / "output")
    one = keep(tmp_path, Retention(max_age_seconds=1), time.time() + 60, Found())
    while not (tmp_path / JOBS / f".removed-{1:024x}").exists():
        next(one)
    one.close()  # type: ignore[attr-defined]
    assert list((tmp_path / JOBS).iterdir())
    look(tmp_path, age=WEEK)
    assert left(tmp_path) == []


def config(root: Path, **retention: int) -> Config:
    tenants = [{"name": name, "subPath": name, "sandbox": {"url": "http://x"}} for name in ("bio", "chem")]
    return Config.model_validate(
        {
            "version": 1,
            "deployment": {"namespace": "a", "name": "b"},
            "engine": {"url": "http://x", "model": "m", "maxModelLen": 4096, "imagesPerPrompt": 15},
            "images": {"root": str(root), "clientPath": "/a", "sandboxPath": "/b", "retention": retention},
            "tenants": tenants,
        }
    )


async def test_rounds(tmp_path: Path) -> None:
    for tenant in ("bio", "chem"):
        job(tmp_path / tenant, 1)
    files.make_directory(tmp_path, ENGINE_COPIES / "left")
    metrics = Metrics()
    retainer = Retainer(metrics, clock=lambda: time.time() + 2 * WEEK)
    try:
        await retainer.look()
        retainer.follow(config(tmp_path, maxAgeSeconds=0))
        await retainer.look()
        assert left(tmp_path / "bio") == [1]
        assert not (tmp_path / ENGINE_COPIES / "left").exists()
        retainer.follow(config(tmp_path, maxAgeSeconds=WEEK))
        await retainer.look()
    finally:
        retainer.close()
    assert left(tmp_path / "bio") == left(tmp_path / "chem") == []
    sample = metrics.registry.get_sample_value
    assert sample("s1vl_retention_removed_jobs_total", {"tenant": "bio"}) == 1
    assert (sample("s1vl_retention_removed_bytes_total", {"tenant": "bio"}) or 0) >= SIZE
    assert sample("s1vl_retention_kept_bytes", {"tenant": "bio"}) == 0


def test_a_deep_folder_is_listed_and_removed_without_a_stack(tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    deep(tmp_path / "o")
    assert files.list_files(tmp_path, Relative("o")) == []
    files.remove_tree(tmp_path, Relative("o"))
    assert not (tmp_path / "o").exists()
