"""Views of one file, and a corpus of ways out."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_orchestrator import files
from s1vl_orchestrator.paths import ENGINE_COPIES, OutsideTenantError, Relative, TenantPaths

PATHS = TenantPaths(
    client=PurePosixPath("/data/images"),
    sandbox=PurePosixPath("/mnt/data/images"),
    root=Path("/srv/s1vl/images"),
    sub_path="chem",
    media_root="/media",
)
CWD = Relative(".s1vl/jobs/j/output")


def test_four_views_of_one_file() -> None:
    file = PATHS.from_client("/data/images/a/x.png")
    assert file == Relative("a/x.png")
    assert PATHS.to_client(file) == "/data/images/a/x.png"
    assert PATHS.to_sandbox(file) == "/mnt/data/images/a/x.png"
    assert PATHS.folder / file == Path("/srv/s1vl/images/chem/a/x.png")
    assert PATHS.engine_url(ENGINE_COPIES / "j/x.png") == "file:///media/.s1vl/engine/j/x.png"


def test_a_tenant_that_owns_the_volume() -> None:
    assert TenantPaths(PATHS.client, PATHS.sandbox, PATHS.root, "", "").folder == Path("/srv/s1vl/images")


@pytest.mark.parametrize("path", ["/data/images//a/./x.png", "/data//images/a/x.png", "//data/images/a/x.png"])
def test_harmless_spellings(path: str) -> None:
    assert PATHS.from_client(path) == Relative("a/x.png")


OUTSIDE = [
    "", "/", "x.png", "./x.png", "/etc/passwd", "/data", "/data/images", "/data/images/", "/data/images/.",
    "/data/images/..", "/data/images/../images/x.png", "/data/images/a/../../bio/x.png", "/data/images/..//x.png",
    "/data/imagesx/x.png", "/data/images/x\0.png", "/data/images/\0/../x.png", "/mnt/data/images/x.png",
    "/srv/s1vl/images/chem/x.png", "file:///data/images/x.png", "~/x.png", "/data/images/" + "a" * 256,
    "/data/images/" + "a/" * 3000, "/data/images/\ud800.png", "\\data\\images\\x.png", "/DATA/images/x.png",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_the_corpus_is_refused(path: str) -> None:
    with pytest.raises(OutsideTenantError):
        PATHS.from_client(path)


@pytest.mark.parametrize("name", ["%2e%2e", "..%2fbio", "..\\bio", ". .", "...", "%00"])
def test_nothing_is_decoded(name: str) -> None:
    assert PATHS.from_client(f"/data/images/{name}/x.png") == Relative(name, "x.png")


@given(st.text(max_size=60))
def test_whatever_is_accepted_stays_below(tail: str) -> None:
    try:
        file = PATHS.from_client("/data/images/" + tail)
    except OutsideTenantError:
        return
    assert not file.is_absolute()
    assert ".." not in file.parts
    assert file.parts


@pytest.mark.parametrize(
    ("printed", "file"),
    [
        ("crop.png", CWD / "crop.png"),
        ("./a/crop.png", CWD / "a/crop.png"),
        ("/mnt/data/images/x.png", Relative("x.png")),
    ],
)
def test_paths_that_code_prints(printed: str, file: Relative) -> None:
    assert PATHS.from_sandbox(printed, CWD) == file


@pytest.mark.parametrize("printed", ["../x.png", "/etc/passwd.png", "/data/images/x.png"])
def test_printed_paths_outside(printed: str) -> None:
    with pytest.raises(OutsideTenantError):
        PATHS.from_sandbox(printed, CWD)


def test_texts_are_translated() -> None:
    listed = {"/data/images/x.png": Relative("x.png"), "/data/images/x.png.png": Relative("x.png.png")}
    said = PATHS.to_sandbox_text("see /data/images/x.png.png and /data/images/x.png, not /data/images/y.png", listed)
    assert said == "see /mnt/data/images/x.png.png and /mnt/data/images/x.png, not /data/images/y.png"
    assert PATHS.to_sandbox_text("/mnt/data/images/x.png", listed) == "/mnt/data/images/x.png"
    assert PATHS.to_client_text("in /mnt/data/images/a.png") == "in /data/images/a.png"


@pytest.fixture
def tenant(tmp_path: Path) -> Path:
    folder = tmp_path / "chem"
    (folder / "a").mkdir(parents=True)
    (tmp_path / "bio").mkdir()
    (tmp_path / "bio/secret.png").write_text("secret")
    (folder / "a/x.png").write_text("mine")
    (folder / "inside.png").symlink_to("a/x.png")
    (folder / "folder").symlink_to("a")
    (folder / "out.png").symlink_to(tmp_path / "bio/secret.png")
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo.png")
    return folder


@pytest.mark.parametrize("path", ["a/x.png", "inside.png", "folder/x.png"])
def test_links_inside_are_followed_once_and_for_all(tenant: Path, path: str) -> None:
    file = files.resolve(tenant, Relative(path))
    assert file == Relative("a/x.png")
    assert files.read(tenant, file, 100) == b"mine"


@pytest.mark.parametrize("path", ["out.png", "up/bio/secret.png", "loop", "loop/x", "absent", "a/x.png/y", "up"])
def test_links_out_are_not(tenant: Path, path: str) -> None:
    with pytest.raises(files.NotOursError):
        files.resolve(tenant, Relative(path))


@pytest.mark.parametrize(
    "path", ["out.png", "up/bio/secret.png", "inside.png", "folder/x.png", "fifo.png", "a", "absent"]
)
def test_reading_follows_nothing_and_does_not_hang(tenant: Path, path: str) -> None:
    """Even a path that was real a moment ago may be a link now."""
    with pytest.raises(files.NotOursError):
        files.read(tenant, Relative(path), 100)


def test_reading_is_bounded(tenant: Path) -> None:
    with pytest.raises(files.FileTooLargeError):
        files.read(tenant, Relative("a/x.png"), 3)


def test_writing_is_whole_and_shared_with_the_sandbox(tenant: Path) -> None:
    files.make_directory(tenant, Relative("new/folder"))
    files.write(tenant, Relative("new/folder/y.png"), b"content")
    written = tenant / "new/folder/y.png"
    assert written.read_bytes() == b"content"
    assert stat.S_IMODE(written.stat().st_mode) == 0o660
    assert stat.S_IMODE((tenant / "new").stat().st_mode) == 0o770
    assert [item.name for item in written.parent.iterdir()] == ["y.png"]


@pytest.mark.parametrize("path", ["up/bio/new.png", "folder/new.png"])
def test_writing_follows_no_link(tenant: Path, path: str) -> None:
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        files.write(tenant, Relative(path), b"x")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        files.make_directory(tenant, Relative(path))


def test_removing_follows_no_link(tenant: Path) -> None:
    files.make_directory(tenant, Relative("job/output"))
    (tenant / "job/output/link").symlink_to("../../../bio")
    files.remove_tree(tenant, Relative("job"))
    files.remove_tree(tenant, Relative("job"))
    assert not (tenant / "job").exists()
    assert (tenant.parent / "bio/secret.png").exists()


def test_listing_sees_regular_files_only(tenant: Path) -> None:
    assert [str(entry.path) for entry in files.list_files(tenant, Relative("a"))] == ["a/x.png"]
    assert files.list_files(tenant, Relative("folder")) == []
    assert files.list_files(tenant, Relative("absent")) == []
    assert files.list_files(tenant, Relative("up")) == []
