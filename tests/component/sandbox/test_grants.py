"""What sessions may touch: jobs that share one workspace, private folders, keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from s1vl_sandbox.cells import KernelStartError, WorkingDirectoryError
from s1vl_sandbox.processes import descendants

from .conftest import Runner, Sandbox, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Job:
    """A job's folder as the orchestrator makes it: an input image, and beside it where the output goes."""

    def __init__(self, sandbox: Sandbox, name: str) -> None:
        self.folder = sandbox.workspace / ".s1vl" / "jobs" / name
        self.folder.mkdir(parents=True)
        self.image = sandbox.workspace / f"{name}.png"
        self.image.write_text(f"image of {name}")
        self.output = self.folder / "output"
        self._sandbox = sandbox
        self.name = name

    async def open(self) -> None:
        """Open the session with what the orchestrator grants."""
        readable = [str(self.image), str(self.folder)]
        body = {"session_id": self.name, "cwd": str(self.output), "readable": readable}
        (await self._sandbox.http.post("/v1/jupyter/sessions/create", json=body)).raise_for_status()

    async def tries(self, code: str) -> str:
        """Run code and return the name of the error that came of it, or "ok"."""
        data = await self._sandbox.execute(code, self.name)
        return str(data["outputs"][-1]["ename"]) if data["status"] == "error" else str(data["status"])


async def test_a_job_sees_its_own_files_only_and_changes_its_output_only(sandbox: Sandbox, session_id: str) -> None:
    mine, other = Job(sandbox, f"{session_id}-1"), Job(sandbox, f"{session_id}-2")
    for job in (mine, other):
        await job.open()
        assert await job.tries("open('result.txt', 'w').write('secret')") == "ok"
    assert (mine.output / "result.txt").read_text() == "secret"
    assert await mine.tries(f"assert open({str(mine.image)!r}).read() == 'image of {mine.name}'") == "ok"
    for code in (
        f"open({str(mine.image)!r}, 'a')",
        f"import os\nos.remove({str(mine.image)!r})",
        f"os.rename({str(mine.image)!r}, 'stolen')",
        f"open({str(mine.folder / 'new')!r}, 'w')",
        f"open({str(other.image)!r})",
        f"open({str(other.output / 'result.txt')!r})",
        f"os.listdir({str(other.output)!r})",
        f"os.listdir({str(sandbox.workspace)!r})",
        f"open({str(other.output / 'new')!r}, 'w')",
    ):
        assert await mine.tries(code) == "PermissionError", code
    assert mine.image.read_text() == f"image of {mine.name}"


async def test_a_plain_session_reads_the_whole_workspace_and_writes_nothing_of_it(
    sandbox: Sandbox, session_id: str, work_dir: Path
) -> None:
    (work_dir / "image").write_text("x")
    assert await sandbox.printed(f"print(open({str(work_dir / 'image')!r}).read())", session_id) == "x"
    data = await sandbox.execute(f"open({str(work_dir / 'image')!r}, 'a')", session_id)
    assert data["outputs"][-1]["ename"] == "PermissionError"


async def test_private_folders_of_others_are_closed(sandbox: Sandbox, session_id: str) -> None:
    folder = await sandbox.printed("import os\nopen('mine', 'w').close()\nprint(os.getcwd())", "owner")
    for path in (folder, str(Path(folder).parent), f"{folder}/mine", str(Path(folder).parent.parent)):
        data = await sandbox.execute(f"import os\nos.close(os.open({path!r}, os.O_RDONLY))", session_id)
        assert data["outputs"][-1]["ename"] == "PermissionError", path


async def test_the_key_of_a_kernel_is_in_no_file_and_no_other_kernel(sandbox: Sandbox, session_id: str) -> None:
    await sandbox.execute("1", session_id)
    await sandbox.execute("1", "other")
    kernel = sandbox.server.sessions.get(session_id).kernel  # type: ignore[union-attr]
    key = kernel._messages.key  # type: ignore[union-attr]
    holders = {pid for pid in descendants(sandbox.host_pid) | {sandbox.host_pid} if key in memory(pid)}
    assert holders == {kernel.pid}  # type: ignore[union-attr]
    assert not (kernel.work_dir.parent / "key").exists()  # type: ignore[union-attr]


def memory(pid: int) -> bytes:
    """Everything a process can write to."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            file.seek(start)
            try:
                found.append(file.read(end - start))
            except OSError:
                # Reserved and not there, e.g. the kernel's own pages.
                continue
    return b"".join(found)


@pytest.mark.parametrize(
    ("cwd", "readable", "says"),
    [
        ("{workspace}/../x", [], "is not an absolute path of a directory"),
        ("{workspace}/none/none", [], "cannot be used"),
        ("{workspace}/link", [], "leads out of the workspace"),
        ("/root", [], "the kernel may not use it"),
        ("/proc/self/task", [], "the kernel may not use it"),
        (None, ["relative"], "not an absolute, normalised path"),
        (None, ["/etc/passwd"], "is not below the workspace"),
        (None, ["{workspace}/../x"], "not an absolute, normalised path"),
        (None, ["{workspace}/none"], "cannot be used"),
        (None, ["{workspace}/link"], "is not below the workspace"),
    ],
)
async def test_what_cannot_be_granted_is_explained(
    sandbox: Sandbox, session_id: str, cwd: str | None, readable: list[str], says: str
) -> None:
    link = sandbox.workspace / "link"
    if not link.is_symlink():
        link.symlink_to("/etc")
    workspace = str(sandbox.workspace)
    asked = [path.format(workspace=workspace) for path in readable]
    with pytest.raises(WorkingDirectoryError, match=says):
        await sandbox.server.sessions.create(session_id, cwd and cwd.format(workspace=workspace), asked)
    assert session_id not in await sandbox.session_ids()


async def test_a_folder_that_every_kernel_may_read_can_be_worked_in(sandbox: Sandbox, session_id: str) -> None:
    assert await sandbox.printed("import os\nprint(os.getcwd())", session_id, cwd="/usr/lib") == "/usr/lib"
    assert await sandbox.printed("print(os.getcwd())", session_id, cwd="/usr") == "/usr"


@pytest.mark.parametrize(
    ("code", "ename", "cause"),
    [
        ("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "ProcessLimitExceeded", "processes"),
        ("while True: open('f' + str(__import__('uuid').uuid4()), 'w').close()", "DiskLimitExceeded", "disk"),
        (
            "n = 0\nwhile True:\n  n += 1\n  open(str(n), 'wb').write(b'x' * 2**24)",
            "DiskLimitExceeded",
            "disk",
        ),
    ],
)
async def test_a_kernel_over_a_watched_limit_is_killed_and_others_go_on(
    sandbox: Sandbox, session_id: str, code: str, ename: str, cause: str
) -> None:
    await sandbox.execute("x = 41", "neighbour")
    data = await sandbox.execute(code, session_id, timeout=120)
    assert (data["status"], data["state_lost"]) == ("error", True)
    assert data["outputs"][-1]["ename"] == ename
    assert await sandbox.printed("print(x + 1)", "neighbour") == "42"
    assert await sandbox.printed("print(1)", session_id) == "1"
    text = (await sandbox.http.get("/metrics")).text
    assert f's1vl_sandbox_kernel_ends_total{{cause="{cause}"}}' in text


async def test_a_kernel_that_closes_everything_is_replaced(sandbox: Sandbox, session_id: str) -> None:
    data = await sandbox.execute("import os\nos.closerange(0, 1024)\nos._exit(3)", session_id, timeout=5)
    assert data["state_lost"] is True
    assert await sandbox.printed("print(1)", session_id) == "1"


async def test_a_cell_that_prints_from_forked_children(sandbox: Sandbox, session_id: str) -> None:
    code = "import os\nif os.fork() == 0:\n  print('from the child', flush=True)\n  os._exit(0)\nos.wait()\n"
    data = await sandbox.execute(code + "import time\ntime.sleep(0.3)", session_id)
    assert "from the child" in str(data["outputs"])


async def test_random_numbers_differ_between_kernels(sandbox: Sandbox) -> None:
    code = "import numpy, random\nprint(numpy.random.rand(), random.random())"
    assert await sandbox.printed(code, "one") != await sandbox.printed(code, "two")


async def test_fifty_sessions_at_once(runner: Runner) -> None:
    import asyncio

    async with runner(max_sessions=50) as sandbox:
        seen = await asyncio.gather(*(sandbox.printed(f"print({n} + 1)", f"s{n}") for n in range(50)))
        assert seen == [str(n + 1) for n in range(50)]


async def test_no_kernel_after_the_end(runner: Runner) -> None:
    async with runner() as sandbox:
        server = sandbox.server
        await eventually((server.root / "host.sock").exists)
    with pytest.raises(KernelStartError, match="shutting down"):
        await server.sessions.create("late", None)
