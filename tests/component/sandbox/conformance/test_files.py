"""`/v1/file`, and that it sees the files that cells see."""

from __future__ import annotations

import base64
import io
import os

import httpx
import pytest

from .conftest import Client, Service, only_ours

pytestmark = pytest.mark.asyncio(loop_scope="session")

LINES = "zero\none\ntwo\nthree\n"
BYTES = bytes(range(256))


async def test_write_then_read(client: Client, folder: str) -> None:
    path = f"{folder}/a/b/text.txt"
    written = await client.data("file.write_file", file=path, content="grüß\n")
    assert (written.file, written.bytes_written) == (path, len("grüß\n".encode()))
    read = await client.data("file.read_file", file=path)
    assert (read.file, read.content) == (path, "grüß\n")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ({"start_line": 1, "end_line": 3}, ["one", "two"]),
        ({"start_line": 2}, ["two", "three"]),
        ({"end_line": 1}, ["zero"]),
        ({"start_line": 9}, []),
    ],
)
async def test_lines_count_from_zero_without_the_end(
    client: Client, folder: str, lines: dict[str, int], expected: list[str]
) -> None:
    await client.data("file.write_file", file=f"{folder}/lines", content=LINES)
    read = await client.data("file.read_file", file=f"{folder}/lines", **lines)
    assert read.content.split() == expected


async def test_newlines_and_append(client: Client, folder: str) -> None:
    path = f"{folder}/file"
    await client.data("file.write_file", file=path, content="a")
    await client.data("file.write_file", file=path, content="b", append=True, leading_newline=True)
    await client.data("file.write_file", file=path, content="c", append=True, trailing_newline=True)
    assert (await client.data("file.read_file", file=path)).content == "a\nbc\n"
    await client.data("file.write_file", file=path, content="new")
    assert (await client.data("file.read_file", file=path)).content == "new"


async def test_append_to_what_is_not_there(client: Client, folder: str) -> None:
    await client.data("file.write_file", file=f"{folder}/new", content="a", append=True)
    assert (await client.data("file.read_file", file=f"{folder}/new")).content == "a"


@pytest.mark.parametrize(
    ("encoding", "content"), [("base64", base64.b64encode(BYTES).decode()), ("raw", BYTES.decode("latin-1"))]
)
async def test_bytes(client: Client, folder: str, encoding: str, content: str) -> None:
    path = f"{folder}/bytes"
    written = await client.data("file.write_file", file=path, content=content, encoding=encoding)
    assert written.bytes_written == 256
    assert await client.download(path) == BYTES


async def test_upload_then_download(client: Client, folder: str) -> None:
    content = os.urandom(3 * 1024 * 1024)
    data = await client.data("file.upload_file", file=("picture.png", io.BytesIO(content)), path=f"{folder}/p.png")
    assert (data.file_path, data.file_size, data.success) == (f"{folder}/p.png", len(content), True)
    assert await client.download(f"{folder}/p.png") == content


async def test_list(client: Client, folder: str) -> None:
    for name in ("b.txt", "a.png", "sub/c.png", ".hidden"):
        await client.data("file.write_file", file=f"{folder}/{name}", content="12345")
    data = await client.data("file.list_path", path=folder, show_hidden=False, include_permissions=True)
    by_name = {info.name: info for info in data.files}
    assert set(by_name) == {"a.png", "b.txt", "sub"}
    assert (data.total_count, data.directory_count, data.file_count) == (3, 1, 2)
    assert by_name["sub"].is_directory is True
    assert by_name["a.png"].path == f"{folder}/a.png"
    assert by_name["a.png"].size == 5
    assert by_name["a.png"].modified_time.startswith("20")
    assert by_name["a.png"].permissions
    assert by_name["a.png"].extension.lstrip(".") == "png"
    deep = await client.data("file.list_path", path=folder, recursive=True, file_types=[".png"])
    assert {info.path for info in deep.files if not info.is_directory} == {f"{folder}/a.png", f"{folder}/sub/c.png"}
    assert ".hidden" in {info.name for info in (await client.data("file.list_path", path=folder)).files}


@pytest.mark.parametrize(("sort_by", "first"), [("name", "a"), ("size", "b"), ("modified", "c")])
async def test_list_is_sorted(client: Client, folder: str, sort_by: str, first: str) -> None:
    for name, content in (("c", "22"), ("b", "1"), ("a", "333")):
        await client.data("file.write_file", file=f"{folder}/{name}", content=content)
    names = [info.name for info in (await client.data("file.list_path", path=folder, sort_by=sort_by)).files]
    backwards = await client.data("file.list_path", path=folder, sort_by=sort_by, sort_desc=True)
    assert names[0] == first
    assert [info.name for info in backwards.files] == names[::-1]


async def test_find_glob_and_replace(client: Client, folder: str) -> None:
    for name in ("one.py", "sub/two.py", "sub/three.txt"):
        await client.data("file.write_file", file=f"{folder}/{name}", content="x = y\nx\n")
    found = await client.data("file.find_files", path=folder, glob="*.py")
    assert f"{folder}/one.py" in found.files
    data = await client.data("file.glob_files", path=folder, pattern="**/*.py", exclude=["one*"])
    assert [(info.path, info.size) for info in data.files] == [(f"{folder}/sub/two.py", 8)]
    assert (data.total_count, data.truncated) == (1, False)
    replaced = await client.data("file.replace_in_file", file=f"{folder}/one.py", old_str="x", new_str="z")
    assert replaced.replaced_count == 2
    assert (await client.data("file.read_file", file=f"{folder}/one.py")).content == "z = y\nz\n"


async def test_a_cell_reads_what_was_uploaded(client: Client, folder: str, session_id: str) -> None:
    await client.data("file.upload_file", file=("data.txt", b"from outside"), path=f"{folder}/data.txt")
    assert await client.printed(f"print(open({folder + '/data.txt'!r}).read())", session_id) == "from outside"


async def test_what_a_cell_writes_can_be_listed_and_downloaded(client: Client, session_id: str) -> None:
    code = "import os\nopen('made.bin', 'wb').write(bytes(range(256)))\nprint(os.getcwd())"
    where = await client.printed(code, session_id)
    assert "made.bin" in {info.name for info in (await client.data("file.list_path", path=where)).files}
    assert await client.download(f"{where}/made.bin") == BYTES


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("file.read_file", {"file": "none"}),
        ("file.list_path", {"path": "none"}),
        ("file.replace_in_file", {"file": "none", "old_str": "a", "new_str": "b"}),
        ("file.find_files", {"path": "none", "glob": "*"}),
        ("file.glob_files", {"path": "none", "pattern": "*"}),
    ],
)
@only_ours("its failures lack fields that its own client requires, so that the client raises")
async def test_failures_are_http_200_and_say_why(
    client: Client, folder: str, method: str, body: dict[str, str]
) -> None:
    key = "file" if "file" in body else "path"
    answer = await client(method, **{**body, key: f"{folder}/none"})
    assert answer.success is False
    data = answer.data
    assert (data.error_type, data.errno_name, data.errno, data.retryable) == ("not_found", "ENOENT", 2, False)
    assert data.exception_type == "FileNotFoundError"
    assert data.operation in method
    assert answer.message.endswith("No such file or directory")


@pytest.mark.parametrize(("path", "field"), [("/v1/file/read", "file"), ("/v1/file/list", "path")])
async def test_failures_on_the_wire(service: Service, folder: str, path: str, field: str) -> None:
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=60) as http:
        answer = await http.post(path, json={field: f"{folder}/none"})
    assert answer.status_code == 200
    assert answer.json()["success"] is False
    assert answer.json()["data"]["error_type"] == "not_found"


@pytest.mark.parametrize(
    ("method", "body", "error_type"),
    [
        ("file.read_file", {"file": "/etc/passwd"}, "permission_denied"),
        ("file.read_file", {"file": "{folder}/../../etc/passwd"}, "invalid_path"),
        ("file.read_file", {"file": "relative"}, "invalid_path"),
        ("file.read_file", {"file": "{folder}/binary"}, "decode_error"),
        ("file.read_file", {"file": "{folder}"}, "invalid_target"),
        ("file.read_file", {"file": "{folder}/binary/below"}, "invalid_target"),
        ("file.read_file", {"file": "{folder}/binary", "sudo": True}, "permission_denied"),
        ("file.write_file", {"file": "/tmp/x", "content": ""}, "permission_denied"),
        ("file.write_file", {"file": "{folder}/x", "content": "%", "encoding": "base64"}, "bad_request"),
        ("file.write_file", {"file": "{folder}/x", "content": "€", "encoding": "raw"}, "bad_request"),
        ("file.write_file", {"file": "{folder}/" + "n" * 300, "content": ""}, "invalid_path"),
        ("file.write_file", {"file": "{folder}/x", "content": "a" * (10 * 2**20 + 1)}, "file_too_large"),
        ("file.upload_file", {"file": ("x", b"x"), "path": "/etc/x"}, "permission_denied"),
        ("file.list_path", {"path": "/"}, "permission_denied"),
        ("file.glob_files", {"path": "{folder}", "pattern": "../*"}, "bad_request"),
    ],
)
@only_ours("it serves all files of its container, and its failures lack fields that its own client requires")
async def test_what_is_refused(
    client: Client, folder: str, method: str, body: dict[str, object], error_type: str
) -> None:
    await client.data("file.write_file", file=f"{folder}/binary", content="/w==", encoding="base64")
    filled = {k: v.replace("{folder}", folder) if isinstance(v, str) else v for k, v in body.items()}
    answer = await client(method, **filled)
    assert answer.success is False
    assert answer.data.error_type == error_type
    assert answer.message


@only_ours("it serves all files of its container")
async def test_links_and_pipes_of_a_cell_are_refused(client: Client, session_id: str) -> None:
    code = "import os\nos.symlink('/etc/passwd', 'link')\nos.symlink('/', 'way')\nos.mkfifo('pipe')\nprint(os.getcwd())"
    where = await client.printed(code, session_id)
    for name in ("link", "way/etc/passwd", "pipe"):
        answer = await client("file.read_file", file=f"{where}/{name}")
        assert (answer.success, answer.data.error_type) == (False, "invalid_target")
        with pytest.raises(Exception, match="400"):
            await client.download(f"{where}/{name}")
    listed = {info.name: info for info in (await client.data("file.list_path", path=where)).files}
    assert listed["way"].is_directory is False


@only_ours("the image's limits are others")
async def test_a_folder_of_strange_names_is_listed(client: Client, session_id: str) -> None:
    code = (
        "import os\nopen(b'\\xff', 'w').close()\nos.utime(b'\\xff', ns=(0, 2**62))\nopen('new\\nline', 'w').close()\n"
    )
    where = await client.printed(f"{code}print(os.getcwd())", session_id)
    names = {info.name for info in (await client.data("file.list_path", path=where, recursive=True)).files}
    assert {"\ufffd", "new\nline"} <= names


@pytest.mark.parametrize("name", ["none", "sub/none"])
async def test_downloads_fail_as_http(service: Service, folder: str, name: str) -> None:
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=60) as http:
        assert (await http.get("/v1/file/download", params={"path": f"{folder}/{name}"})).status_code == 404


@only_ours("it serves all files of its container; ranges came with later versions")
async def test_downloads(service: Service, folder: str) -> None:
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=60) as http:
        await http.post("/v1/file/write", json={"file": f"{folder}/ü\n.txt", "content": "0123456789"})
        params = {"path": f"{folder}/ü\n.txt"}
        whole = await http.get("/v1/file/download", params=params)
        assert (whole.content, whole.headers["content-length"]) == (b"0123456789", "10")
        assert whole.headers["content-type"] == "application/octet-stream"
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert whole.headers["content-disposition"].startswith("attachment")
        part = await http.get("/v1/file/download", params=params, headers={"Range": "bytes=2-4"})
        assert (part.status_code, part.content) == (206, b"234")
        head = await http.head("/v1/file/download", params=params)
        assert (head.content, head.headers["content-length"]) == (b"", "10")
        for query in (f"{folder}/..%2f..%2fx", f"{folder}/%2e%2e/x", f"{folder}%2f..", f"{folder}/x%00"):
            assert (await http.get(f"/v1/file/download?path={query}")).status_code == 400
        for path, status in (("/etc/passwd", 403), ("relative", 400), (folder, 400), (f"{folder}/../x", 400)):
            refused = await http.get("/v1/file/download", params={"path": path})
            assert (refused.status_code, refused.json()["success"]) == (status, False)


@only_ours("where it puts files without a path is not documented")
async def test_uploads_without_a_path_go_home(service: Service, session_id: str) -> None:
    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=60) as http:
        home = (await http.get("/v1/sandbox")).json()["home_dir"]
        stored = await http.post("/v1/file/upload", files={"file": (f"../../{session_id}", b"x")})
        assert stored.json()["data"]["file_path"] == f"{home}/{session_id}"
        for files in ({"other": ("x", b"x")}, {"file": ("..", b"x")}):
            assert (await http.post("/v1/file/upload", files=files)).status_code == 422
        assert (await http.post("/v1/file/upload", json={})).status_code == 422


@only_ours("the image's limits are others")
async def test_an_upload_that_is_too_large_is_refused(service: Service, folder: str) -> None:
    async def body():  # type: ignore[no-untyped-def]
        head = f'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n{folder}/x\r\n'
        head += '--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        yield head.encode()
        for _ in range(101):
            yield b"x" * 2**20

    async with httpx.AsyncClient(base_url=service.url, headers=service.headers, timeout=60) as http:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        refused = await http.post("/v1/file/upload", content=body(), headers=headers)
        assert refused.status_code == 413
        assert str(100 * 2**20) in refused.json()["message"]
        missing = await http.get("/v1/file/download", params={"path": f"{folder}/x"})
        assert missing.status_code == 404
