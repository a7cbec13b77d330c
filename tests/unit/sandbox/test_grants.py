"""From what a client asks for to paths that can be granted."""

from __future__ import annotations

from pathlib import Path

import pytest

from s1vl_sandbox.cells import WorkingDirectoryError
from s1vl_sandbox.grants import SessionGrants, session_grants, working_directory


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with an image, a job, and a link that leads out."""
    root = tmp_path.resolve() / "images"
    (root / "job").mkdir(parents=True)
    (root / "a.png").touch()
    (root / "out").symlink_to("/etc")
    return root


def test_a_plain_session_reads_the_workspace(workspace: Path) -> None:
    assert session_grants(None, (), str(workspace)) == SessionGrants((workspace,))


def test_without_a_workspace_there_is_nothing_to_read() -> None:
    assert session_grants(None, (), "") == SessionGrants()
    with pytest.raises(WorkingDirectoryError, match="no workspace"):
        session_grants(None, ["/etc/passwd"], "")


def test_a_directory_below_the_workspace_is_made_and_may_be_written(workspace: Path) -> None:
    output = workspace / "job" / "output"
    grants = session_grants(str(output), [str(workspace / "a.png")], str(workspace))
    assert grants == SessionGrants((workspace / "a.png",), (output,), output)
    assert output.stat().st_mode & 0o7777 == 0o2770
    output.chmod(0o755)
    assert session_grants(str(output), (), str(workspace)).write == (output,)
    assert output.stat().st_mode & 0o7777 == 0o755, "what was there keeps its mode"


def test_a_workspace_behind_a_link_is_granted_where_it_is(workspace: Path) -> None:
    link = workspace.parent / "link"
    link.symlink_to(workspace)
    for asked in (link, workspace):
        assert session_grants(str(asked / "job"), (), str(link)).write == (workspace / "job",)


@pytest.mark.parametrize(
    ("cwd", "says"),
    [
        ("relative", "absolute path of a directory"),
        ("/a\0b", "absolute path of a directory"),
        ("{}/../x", "absolute path of a directory"),
        ("{}/a.png", "absolute path of a directory"),
        ("{}/none/none", "cannot be used"),
        ("{}/out", "leads out of the workspace"),
        ("/nowhere", "absolute path of a directory"),
    ],
)
def test_a_working_directory_that_cannot_be_is_refused(workspace: Path, cwd: str, says: str) -> None:
    with pytest.raises(WorkingDirectoryError, match=says):
        session_grants(cwd.format(workspace), (), str(workspace))


@pytest.mark.parametrize("path", ["relative", "/etc/passwd", "{}/../x", "{}/none", "{}/out", "{}/out/passwd", "{}/\0"])
def test_a_readable_path_that_cannot_be_is_refused(workspace: Path, path: str) -> None:
    with pytest.raises(WorkingDirectoryError, match="readable path"):
        session_grants(None, [path.format(workspace)], str(workspace))


def test_other_directories_are_left_to_the_kernel_to_judge(workspace: Path) -> None:
    assert session_grants("/usr", (), str(workspace)) == SessionGrants((workspace,), (), Path("/usr"))
    assert working_directory(None) is None
