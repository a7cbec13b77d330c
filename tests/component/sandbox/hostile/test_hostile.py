"""The hostile cells against a real server process on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.sandbox_program import SandboxProgram
from s1vl_sandbox.containment import Protection, probe
from tests.hostile.case import Case, Session
from tests.hostile.corpus import TRIALS, trial_id
from tests.hostile.judge import Judge

MIB = 1024**2

needs_containment = pytest.mark.skipif(
    not {Protection.FILES, Protection.TCP, Protection.SIGNALS, Protection.SYSCALLS} <= probe().held,
    reason="this machine's kernel has no Landlock of ABI 6, or there is no libseccomp",
)


class BareProcess:
    """`s1vl-sandbox serve` and what lies beside it."""

    def __init__(self, folder: Path) -> None:
        self.key = secrets.token_hex(16)
        self._workspace = folder / "images"
        self._state = folder / "state"
        for made in (self._workspace, self._state):
            made.mkdir()
        self.workspace, self.state_dir = str(self._workspace), str(self._state)
        self.program = SandboxProgram(
            folder,
            api_key_sha256=hashlib.sha256(self.key.encode()).hexdigest(),
            warm_kernels=2,
            workspace=self._workspace,
            state_dir=self._state,
            # Small, so that filling them takes no time.
            kernel_memory_bytes=2048 * MIB,
            kernel_file_bytes=64 * MIB,
        )
        self.url, self.port, self.pids = self.program.url, self.program.port, [self.program.process.pid]

    def make_job(self, name: str) -> str:
        job = self._workspace / ".s1vl/jobs" / name
        job.mkdir(parents=True)
        (job / "input.txt").write_text("a job's own input")
        return str(job)

    def write_input(self, content: str) -> str:
        path = self._workspace / "picture.png"
        path.write_text(content)
        return str(path)

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def group_lives(self, leader: int) -> bool:
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture(scope="module")
def place() -> Iterator[BareProcess]:
    # Not pytest's folder: paths of sockets may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="s1vl-", dir="/tmp") as folder:
        place = BareProcess(Path(folder))
        try:
            yield place
            assert place.program.process.poll() is None, place.program.said()
        finally:
            place.program.end()
        assert list(Path(place.state_dir).iterdir()) == [], "the server left files behind"


@pytest.fixture(scope="module")
def judge(place: BareProcess) -> Iterator[Judge]:
    with contextlib.closing(Judge(place)) as judge:
        yield judge


@needs_containment
@pytest.mark.parametrize("trial", TRIALS, ids=trial_id)
def test_it_is_contained(judge: Judge, trial: tuple[Case, Session]) -> None:
    judge.try_case(*trial)


@needs_containment
def test_the_sandbox_says_what_holds(judge: Judge) -> None:
    assert judge.held() >= {"files", "tcp", "signals", "syscalls"}
