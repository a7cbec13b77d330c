"""The init container that prepares a tenant's folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from s1vl_sandbox import storage
from s1vl_sandbox.storage import GID, MODE, UID, StorageError, prepare, prepare_engine_folder, split_sub_path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    volume = tmp_path / "volume"
    volume.mkdir()
    if os.geteuid() == 0:
        os.chown(volume, UID, GID)
    return volume


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("sub_path", "parts"), [("", ()), ("chem", ("chem",)), ("a/b.c/d-1", ("a", "b.c", "d-1"))])
def test_good_sub_paths(sub_path: str, parts: tuple[str, ...]) -> None:
    assert split_sub_path(sub_path) == parts


@pytest.mark.parametrize(
    "sub_path", ["/", "/etc", "..", "../x", "a/../b", "a/..", ".", "./a", "a//b", "a/", "a\0b", ".s1vl", "a/.s1vl/jobs"]
)
def test_bad_sub_paths(sub_path: str) -> None:
    with pytest.raises(StorageError, match="sub path"):
        split_sub_path(sub_path)


@pytest.mark.parametrize("sub_path", ["", "chem", "groups/chem"])
def test_folders_are_made_and_can_be_made_again(root: Path, sub_path: str) -> None:
    for _ in range(2):
        folder = prepare(root, sub_path)
    assert folder == root / sub_path
    for made in (folder / ".s1vl", folder / ".s1vl/jobs", folder / ".s1vl/canary"):
        assert mode(made) == MODE
        assert sorted(p.name for p in made.iterdir()) == (["canary", "jobs"] if made.name == ".s1vl" else [])
    if sub_path:
        assert mode(folder) == MODE


@needs_root
def test_root_gives_what_it_makes_to_the_sandbox_user(root: Path) -> None:
    folder = prepare(root, "groups/chem")
    for made in (root / "groups", folder, folder / ".s1vl", folder / ".s1vl/jobs", folder / ".s1vl/canary"):
        assert (made.stat().st_uid, made.stat().st_gid) == (UID, GID)


def test_the_engines_folder_lies_at_the_root_beside_the_tenants(root: Path) -> None:
    for _ in range(2):
        assert storage.main(root, "chem") == 0
    assert mode(root / ".s1vl/engine") == MODE
    assert not (root / "chem/.s1vl/engine").exists()


def test_an_engines_folder_that_cannot_be_made_is_said_and_harms_nobody(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / ".s1vl").symlink_to(tmp_path)
    with pytest.raises(StorageError, match="symbolic link"):
        prepare_engine_folder(root)
    assert storage.main(root, "chem") == 0
    assert "inline" in capsys.readouterr().err
    assert not (tmp_path / "engine").exists()


@needs_root
def test_our_folders_are_repaired_and_the_users_files_are_left_alone(root: Path) -> None:
    theirs = root / "chem"
    (theirs / ".s1vl").mkdir(parents=True)
    (theirs / "x.png").write_text("x")
    os.chown(theirs, 1234, GID)
    theirs.chmod(0o775)
    (theirs / "x.png").chmod(0o600)
    prepare(root, "chem")
    assert (theirs.stat().st_uid, mode(theirs)) == (1234, 0o775)
    assert ((theirs / "x.png").stat().st_uid, mode(theirs / "x.png")) == (0, 0o600)
    assert ((theirs / ".s1vl").stat().st_uid, mode(theirs / ".s1vl")) == (UID, MODE)


@needs_root
def test_a_folder_that_the_sandbox_could_not_read_is_named(root: Path) -> None:
    (root / "chem").mkdir(mode=0o750)
    with pytest.raises(StorageError, match=r"chem belongs to 0:0 with mode 0750: user 10001:10001 cannot read"):
        prepare(root, "chem")


@needs_root
def test_a_folder_of_the_hosts_root_is_served_as_it_is(root: Path) -> None:
    os.chown(root, 0, 0)
    root.chmod(0o755)
    prepare(root, "")
    assert (root.stat().st_uid, mode(root)) == (0, 0o755)
    assert ((root / ".s1vl/jobs").stat().st_uid, mode(root / ".s1vl/jobs")) == (UID, MODE)


@pytest.mark.parametrize("where", ["chem", "chem/.s1vl", "chem/.s1vl/jobs", "chem/.s1vl/canary"])
def test_symbolic_links_are_refused_and_their_targets_untouched(root: Path, tmp_path: Path, where: str) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    before = target.stat()
    link = root / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    with pytest.raises(StorageError, match="symbolic link"):
        prepare(root, "chem")
    assert list(target.iterdir()) == []
    assert (target.stat().st_uid, target.stat().st_mode) == (before.st_uid, before.st_mode)


def test_a_file_in_the_way_is_named(root: Path) -> None:
    (root / "chem").write_text("x")
    with pytest.raises(StorageError, match="chem is not a folder"):
        prepare(root, "chem")


def test_a_missing_volume_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"not mounted at .*/nowhere: No such file"):
        prepare(tmp_path / "nowhere", "chem")


def test_the_reason_goes_to_the_termination_log(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    assert storage.main(root, "../x", log) == 1
    assert capsys.readouterr().err == "storage-init: " + log.read_text()
    assert len(log.read_text().splitlines()) == 1
    assert storage.main(root, "chem", log) == 0


def test_no_termination_log_is_made_outside_of_a_pod(root: Path, tmp_path: Path) -> None:
    assert storage.main(root, "../x", tmp_path / "none") == 1
    assert not (tmp_path / "none").exists()
