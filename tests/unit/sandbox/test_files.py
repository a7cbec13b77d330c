"""No path leads out of what is served, and nothing but plain files is opened."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_sandbox.files import FILE_MODE, FOLDER_MODE, FileRefusedError, Files, Root, split_path

SECRET = b"not yours"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`root` is served; `outside` is not, and everything in `root` tries to lead there."""
    place = tmp_path_factory.mktemp("place")
    root, outside = place / "root", place / "outside"
    (root / "folder").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    (root / "plain").write_bytes(b"plain")
    (root / "folder" / "inner").write_bytes(b"inner")
    (root / "link").symlink_to(outside / "secret")
    (root / "within").symlink_to(root / "plain")
    (root / "dangling").symlink_to(outside / "new")
    (root / "way").symlink_to(outside)
    (root / "up").symlink_to("..")
    os.link(outside / "secret", root / "hard")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
    return place


@pytest.fixture
def files(place: Path) -> Files:
    return Files([Root(place / "root")])


TRAVERSALS = [
    "/root/../outside/secret",
    "/root/folder/../../outside/secret",
    "/root/./../outside/secret",
    "/root//../outside/secret",
    "/root/..",
    "/..",
]
LITERAL = [
    "%2e%2e/outside/secret",
    "..%2foutside",
    "..\\outside\\secret",
    "\u2025/secret",
    "\uff0e\uff0e/secret",
    "%00",
    "..;/secret",
]
LINKS = ["link", "within", "dangling", "way/secret", "up/outside/secret", "folder/../link"]


@pytest.mark.parametrize(
    ("path", "error_type"),
    [
        *((path, "invalid_path") for path in TRAVERSALS),
        ("", "invalid_path"),
        ("plain", "invalid_path"),
        ("./plain", "invalid_path"),
        ("~/plain", "invalid_path"),
        ("file:///etc/passwd", "invalid_path"),
        ("/root/plain\0", "invalid_path"),
        ("/root/\0/plain", "invalid_path"),
        ("/", "permission_denied"),
        ("/outside/secret", "permission_denied"),
        ("/etc/passwd", "permission_denied"),
        ("/proc/self/environ", "permission_denied"),
        ("/rootless/plain", "permission_denied"),
        ("/root/link", "invalid_target"),
        ("/root/within", "invalid_target"),
        ("/root/dangling", "invalid_target"),
        ("/root/way/secret", "invalid_target"),
        ("/root/up/outside/secret", "invalid_target"),
        ("/root/plain/below", "invalid_target"),
        ("/root/hard", "invalid_target"),
        ("/root/pipe", "invalid_target"),
        ("/root/socket", "invalid_target"),
    ],
)
@pytest.mark.parametrize("operation", ["open", "read", "replace", "append"])
def test_what_is_refused(files: Files, place: Path, path: str, error_type: str, operation: str) -> None:
    full = f"{place}{path}" if path.startswith("/") and not path.startswith(("/etc", "/proc")) else path
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: files.open(full),
        "read": lambda: files.read(full, 100),
        "replace": lambda: files.replace(full, io.BytesIO(b"overwritten")),
        "append": lambda: files.append(full, b"appended"),
    }
    with pytest.raises(FileRefusedError) as refused:
        calls[operation]()
    assert refused.value.error_type == error_type
    assert (place / "outside" / "secret").read_bytes() == SECRET
    assert names_in(place / "outside") == ["secret"]


@pytest.mark.parametrize("name", LITERAL)
def test_nothing_is_decoded(files: Files, place: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(f"{place}/root/{name}", 100)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/root", IsADirectoryError),
        ("/root/folder", IsADirectoryError),
        ("/root/none", FileNotFoundError),
        ("/root/none/plain", FileNotFoundError),
        (f"/root/{'n' * 256}", OSError),
        (f"/root/{'n' * 255}/{'n/' * 3000}x", OSError),
    ],
)
def test_what_cannot_be_read(files: Files, place: Path, path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        files.read(f"{place}{path}", 100)


@pytest.mark.parametrize("path", ["/root/plain", "//root///plain", "/./root/./plain", "/root/plain/"])
def test_slashes_and_dots_mean_nothing(files: Files, place: Path, path: str) -> None:
    assert files.read(f"{place}{path}", 5) == b"plain"


def test_a_link_above_the_root_is_followed_and_one_below_the_anchor_is_not(tmp_path: Path) -> None:
    (tmp_path / "real" / "session").mkdir(parents=True)
    (tmp_path / "real" / "session" / "file").write_bytes(b"1")
    (tmp_path / "anchor").symlink_to(tmp_path / "real")
    path = f"{tmp_path}/anchor/session/file"
    assert Files([Root(tmp_path / "anchor", PurePosixPath("session"))]).read(path, 1) == b"1"
    (tmp_path / "real" / "session").rename(tmp_path / "real" / "moved")
    (tmp_path / "real" / "session").symlink_to(tmp_path / "real" / "moved")
    with pytest.raises(FileRefusedError, match="a symbolic link"):
        Files([Root(tmp_path / "anchor", PurePosixPath("session"))]).read(path, 1)


def test_a_file_that_is_too_large_says_the_number(files: Files, place: Path) -> None:
    with pytest.raises(FileRefusedError, match="over 4 bytes"):
        files.read(f"{place}/root/plain", 4)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_kernels_can_use_what_the_server_makes(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files = Files([Root(tmp_path)])
        assert files.replace(f"{tmp_path}/a/b/new", io.BytesIO(b"123")) == 3
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == FOLDER_MODE
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == FOLDER_MODE
    assert stat.S_IMODE((tmp_path / "a" / "b" / "new").stat().st_mode) == FILE_MODE
    assert names_in(tmp_path / "a" / "b") == ["new"]


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o644, 0o664), (0o755, 0o775), (0o600, 0o660), (0o4755, 0o775), (0o400, 0o660)]
)
def test_an_overwritten_file_keeps_its_mode_and_the_group_can_write(tmp_path: Path, mode: int, expected: int) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(mode)
    Files([Root(tmp_path)]).replace(f"{tmp_path}/file", io.BytesIO(b"new"))
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the sender is gone")

    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OSError, match="the sender is gone"):
        Files([Root(tmp_path)]).replace(f"{tmp_path}/file", Broken())
    assert names_in(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_append(tmp_path: Path) -> None:
    files = Files([Root(tmp_path)])
    assert files.append(f"{tmp_path}/file", b"1") is False
    assert files.replace(f"{tmp_path}/file", io.BytesIO(b"1")) == 1
    assert files.append(f"{tmp_path}/file", b"2") is True
    assert (tmp_path / "file").read_bytes() == b"12"


@pytest.fixture
def swapping(tmp_path: Path) -> Iterator[Path]:
    """A folder that is by turns itself and a link to another one, as fast as a thread can swap them."""
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real" / "file").write_bytes(b"mine")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(SECRET)
    (root / "link").symlink_to(tmp_path / "outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for name in ("real", "link"):
                (root / name).rename(root / "place")
                (root / "place").rename(root / name)

    thread = threading.Thread(target=swap)
    thread.start()
    yield root / "place" / "file"
    stop.set()
    thread.join()


def test_no_swap_in_the_middle_leads_out(swapping: Path) -> None:
    files = Files([Root(swapping.parent.parent)])
    read = set()
    for _ in range(2000):
        with contextlib.suppress(OSError):
            read.add(files.read(str(swapping), 10_000).rstrip(b"!"))
            # Not `replace`, which would make the folder in the moment that it is missing.
            files.append(str(swapping), b"!")
    assert read <= {b"mine"}
    assert (swapping.parent.parent.parent / "outside" / "file").read_bytes() == SECRET


parts = st.sampled_from(
    [
        "..",
        ".",
        "",
        "root",
        "outside",
        "secret",
        "folder",
        "link",
        "within",
        "way",
        "up",
        "hard",
        "plain",
        "inner",
        "%2e%2e",
    ]
) | st.text(max_size=5)


@given(path=st.lists(parts, max_size=8).map("/".join), below=st.booleans())
def test_whatever_the_path_nothing_outside_is_read(place: Path, path: str, below: bool) -> None:
    """The property of all the above: an answer holds only bytes of files that lie in the root."""
    files = Files([Root(place / "root")])
    try:
        content = files.read(f"{place}/root/{path}" if below else f"{place}/{path}", 100)
    except (OSError, UnicodeEncodeError):
        return
    assert content in (b"plain", b"inner")


@given(path=st.lists(parts, max_size=8).map("/".join))
def test_split_paths_hold_nothing_but_names(path: str) -> None:
    try:
        found = split_path(f"/{path}")
    except FileRefusedError:
        assert ".." in path.split("/") or "\0" in path
        return
    assert not {"", ".", ".."} & set(found)
    assert not any("/" in part or "\0" in part for part in found)
