"""`GET /v1/images/{id}`: what jobs made, for who made it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from s1vl_orchestrator import cells, files, inputs, pictures
from s1vl_orchestrator.api import images as api
from s1vl_orchestrator.protocol.profile import load_profile
from tests.component.orchestrator.conftest import World, code, final, image, png, results, text

CROP = "image_1.resize((300, 200)).save(output_dir + '/crop.png')"
NAMED = {"Authorization": "Bearer key-chem"}


async def make(world: World, source: str = CROP, key: str = "key-chem", content: bytes | None = None) -> dict[str, Any]:
    """Have a job make a picture; returns its entry of the answer's `images`."""
    world.engine.script = [code(source), final("red")]
    answer = await world.answer(text(), image(content or png(size=(600, 400))), key=key)
    [made] = answer["images"]
    entry: dict[str, Any] = made
    return entry


def file_of(world: World, made: dict[str, Any], tenant: str = "chem") -> Path:
    path: str = made["path"]
    return world.folder(tenant) / path.removeprefix("/data/images/")


async def get(world: World, url: str, key: str = "key-chem", **headers: str) -> httpx.Response:
    return await world.http.get(url, headers={"X-API-Key": key, **headers})


def opened(response: httpx.Response) -> Image.Image:
    picture = Image.open(io.BytesIO(response.content))
    picture.load()
    return picture


async def test_a_picture(world: World) -> None:
    made = await make(world)
    content = file_of(world, made).read_bytes()
    assert made.keys() == {"id", "path", "url", "sha256", "width", "height"}
    assert made["url"] == f"/v1/images/{made['id']}"
    assert made["sha256"] == hashlib.sha256(content).hexdigest()
    answer = await get(world, made["url"])
    assert (answer.status_code, answer.content) == (200, content)
    headers = {
        "content-type": "image/png",
        "content-length": str(len(content)),
        "etag": f'"{made["sha256"]}"',
        "cache-control": "private, max-age=604800, immutable",
        "vary": "Authorization, X-API-Key",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "content-disposition": "inline; filename=\"crop.png\"; filename*=UTF-8''crop.png",
    }
    assert {name: answer.headers[name] for name in headers} == headers
    head = await world.http.head(made["url"], headers=NAMED)
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in headers} == headers


async def test_what_the_client_has_is_not_sent_again(world: World) -> None:
    made = await make(world)
    etag = f'"{made["sha256"]}"'
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = await get(world, made["url"], **{"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    small = (await get(world, f"{made['url']}?thumbnail=64")).headers["etag"]
    assert small != etag
    for known, status in ((etag, 200), (small, 304)):
        answer = await get(world, f"{made['url']}?thumbnail=64", **{"If-None-Match": known})
        assert answer.status_code == status


async def test_events_and_the_facade_have_the_same_entry(world: World) -> None:
    world.engine.script = [code(CROP), final("red")]
    body = {"messages": [text(), image(png(size=(600, 400)))]}
    streamed = (await world.http.post("/process?stream=true", json=body)).text
    events = [block.split("\n") for block in streamed.split("\n\n")]
    [event] = [json.loads(lines[1].removeprefix("data: ")) for lines in events if lines[0] == "event: image"]
    [done] = [json.loads(lines[1].removeprefix("data: ")) for lines in events if lines[0] == "event: done"]
    assert event == {"turn": 1, **done["images"][0]}
    assert (await get(world, event["url"])).status_code == 200
    world.engine.script = [code(CROP), final("red")]
    chat = {"model": "ScienceOne-AI/S1-VL-32B", "messages": [{"role": "user", "content": body["messages"]}]}
    facade = (await world.http.post("/v1/chat/completions", json=chat)).json()
    [made] = facade["thinking_with_images"]["images"]
    assert (await get(world, made["url"])).headers["etag"] == f'"{made["sha256"]}"'


async def test_any_instance_serves_it_without_remembering(world: World) -> None:
    made = await make(world)
    world.service.tenants["chem"].serving = asyncio.Semaphore(1)
    copied = world.root / "bio" / file_of(world, made).relative_to(world.folder())
    copied.parent.mkdir(parents=True)
    copied.write_bytes(file_of(world, made).read_bytes())
    assert (await get(world, made["url"], key="key-bio")).status_code == 200


async def test_another_tenants_picture_is_one_that_does_not_exist(world: World) -> None:
    made = await make(world)
    absent = made["url"].replace(made["id"][:8], "00000000")
    answers = [await get(world, url, key="key-bio") for url in (made["url"], absent)]
    answers += [await get(world, absent), await get(world, "/v1/images/x")]
    for answer in answers:
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "image_not_found"
    assert len({answer.content for answer in answers}) == 1
    assert (await get(world, made["url"], key="wrong")).status_code == 401


def swap_symlink_to_input(file: Path, world: World) -> None:
    file.unlink()
    file.symlink_to(world.folder() / "secret.png")


def swap_symlink_to_tenant(file: Path, world: World) -> None:
    file.unlink()
    file.symlink_to(world.folder("bio") / "secret.png")


def swap_folder_link(file: Path, world: World) -> None:
    moved = file.parent.rename(file.parent.with_name("elsewhere"))
    file.parent.symlink_to(moved)


def swap_fifo(file: Path, world: World) -> None:
    file.unlink()
    os.mkfifo(file)


def swap_folder(file: Path, world: World) -> None:
    file.unlink()
    file.mkdir()


def swap_content(file: Path, world: World) -> None:
    file.write_bytes(png("blue"))


def append(file: Path, world: World) -> None:
    with file.open("ab") as out:
        out.write(b"<script>")


def swap_huge(file: Path, world: World) -> None:
    with file.open("r+b") as out:
        out.truncate(1 << 40)


SWAPS = [
    *(swap_symlink_to_input, swap_symlink_to_tenant, swap_folder_link, swap_fifo, swap_folder, swap_content, append),
    *(swap_huge, lambda file, world: file.unlink(), lambda file, world: file.chmod(0)),
]


@pytest.mark.parametrize("swap", SWAPS, ids=range(len(SWAPS)))
async def test_a_file_that_was_swapped_is_gone(world: World, swap: Callable[[Path, World], None]) -> None:
    for tenant in ("chem", "bio"):
        # The very bytes, so that only the way to them is wrong.
        world.put("secret.png", png(size=(600, 400)), tenant)
    made = await make(world, "image_1.save(output_dir + '/crop.png')\nprint(1)")
    file = file_of(world, made)
    for tenant in ("chem", "bio"):
        (world.folder(tenant) / "secret.png").write_bytes(file.read_bytes())
    assert (await get(world, made["url"])).status_code == 200
    swap(file, world)
    if file.is_file() and not file.is_symlink() and os.access(file, os.R_OK) and not file.stat().st_mode & 0o777:
        pytest.skip("root reads it all the same")
    answer = await get(world, made["url"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "image_not_found")


def made_up(job: str, content: bytes, path: str) -> str:
    digest = hashlib.sha256(content).hexdigest()[:32]
    return f"/v1/images/{job}.{digest}.{urlsafe_b64encode(path.encode()).decode().rstrip('=')}"


async def test_only_pictures_that_jobs_made(world: World) -> None:
    """Whoever makes up an id gets no inputs, nothing that is no picture, and nothing from elsewhere."""
    made = await make(world)
    output = file_of(world, made).parent
    job = output.parent.name
    (output / "page.html").write_bytes(b"<script>alert(1)</script>")
    (output / "drawing.svg").write_bytes(b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    world.put("x.png", png())
    for name, reachable in (("crop.png", True), ("page.html", False), ("drawing.svg", False)):
        answer = await get(world, made_up(job, (output / name).read_bytes(), name))
        assert answer.status_code == (200 if reachable else 404), name
    [given] = (output.parent / "inputs").iterdir()
    for path in (f"../inputs/{given.name}", f"/{given}", str(given), "../../../../x.png", "../../../../../bio/x.png"):
        answer = await get(world, made_up(job, given.read_bytes(), path))
        assert answer.status_code == 404, path


async def test_the_type_is_what_the_bytes_say(world: World) -> None:
    source = "image_1.convert('RGB').save(output_dir + '/Bild 1 \u00e4.png', 'JPEG')"
    made = await make(world, source)
    answer = await get(world, made["url"])
    assert answer.headers["content-type"] == "image/jpeg"
    name = "inline; filename=\"Bild_1_.jpg\"; filename*=UTF-8''Bild%201%20%C3%A4.jpg"
    assert answer.headers["content-disposition"] == name
    assert opened(answer).format == "JPEG"


async def test_a_picture_that_is_also_a_page_is_served_as_a_picture(world: World) -> None:
    source = (
        "import io\nout = io.BytesIO()\nimage_1.save(out, 'PNG')\n"
        "with open(output_dir + '/page.html.png', 'wb') as f: f.write(out.getvalue() + b'<html><script>alert(1)')"
    )
    answer = await get(world, (await make(world, source))["url"])
    assert answer.content.endswith(b"alert(1)")
    assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == ("image/png", "nosniff")
    assert "sandbox" in answer.headers["content-security-policy"]


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    out = io.BytesIO()
    picture = Image.new("RGB", (600, 400), "blue")
    picture.paste("red", (0, 0, 600, 200))
    picture.save(out, "JPEG", exif=data, quality=95)
    return out.getvalue()


@pytest.mark.parametrize(("asked", "size"), [(16, (16, 11)), (100, (100, 67)), (300, (300, 200)), (2048, (300, 200))])
async def test_thumbnails(world: World, asked: int, size: tuple[int, int]) -> None:
    made = await make(world)
    answer = await get(world, f"{made['url']}?thumbnail={asked}")
    assert answer.headers["content-type"] == "image/png"
    assert opened(answer).size == size
    assert answer.headers["content-disposition"].startswith(f'inline; filename="crop_{asked}.png"')
    assert int(answer.headers["content-length"]) == len(answer.content)
    head = await world.http.head(f"{made['url']}?thumbnail={asked}", headers=NAMED)
    assert (head.content, head.headers["etag"]) == (b"", answer.headers["etag"])


async def test_a_thumbnail_is_upright(world: World) -> None:
    source = "import shutil\nshutil.copy(image_path, output_dir + '/turned.jpg')"
    made = await make(world, source, content=exif(6))
    assert (made["width"], made["height"]) == (600, 400)
    whole, small = [await get(world, made["url"] + query) for query in ("", "?thumbnail=150")]
    assert opened(whole).size == (600, 400)
    assert (small.headers["content-type"], opened(small).size) == ("image/jpeg", (100, 150))
    right = opened(small).getpixel((90, 75))
    assert isinstance(right, tuple)
    assert right[0] > 200 > right[2]
    assert not opened(small).getexif()


@pytest.mark.parametrize("asked", ["0", "15", "2049", "-1", "1e9", "NaN", "x", "", "64&thumbnail=x", "9" * 400])
async def test_sizes_that_are_none(world: World, asked: str) -> None:
    made = await make(world)
    answer = await get(world, f"{made['url']}?thumbnail={asked}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


RAW = [
    *("/v1/images/..%2f..%2fetc%2fpasswd", "/v1/images/../../../etc/passwd", "/v1/images/%2e%2e/%2e%2e/x.png"),
    *("/v1/images/%00", "/v1/images/a%00b", "/v1/images/%ff%fe", "/v1/images/%c0%af", "/v1/images/%25%32%65"),
    *("/v1/images//etc/passwd", "/v1/images/%5c..%5c", "/v1/images/" + "a" * 8000, "/v1/images/" + "%61" * 4000),
]


@pytest.mark.parametrize("target", RAW, ids=range(len(RAW)))
async def test_whatever_stands_in_the_place_of_an_id(world: World, target: str) -> None:
    """As it is on the wire: clients would tidy it up."""
    host, port = world.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nX-API-Key: key-chem\r\nConnection: close\r\n\r\n".encode())
        status = int((await reader.readline()).split()[1])
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
    finally:
        writer.close()
    assert status == 404
    assert json.loads(body)["error"]["code"] == "image_not_found"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("%0A", "image_not_found"), ("a%0A", "image_not_found"), ("%0Aa", "not_found"), ("a%0D%0Ab", "not_found")],
)
async def test_an_id_that_goes_on_behind_a_line_end_is_no_endpoint(world: World, given: str, expected: str) -> None:
    answer = await get(world, f"/v1/images/{given}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, expected)
    paths = (await world.http.get("/openapi.json")).json()["paths"]
    [documented] = [path["get"]["responses"]["404"] for name, path in paths.items() if name.startswith("/v1/images/")]
    assert documented["content"]["application/json"]["examples"].keys() == {"image_not_found", "not_found"}


async def test_a_made_picture_that_is_stored_rotated_says_so(world: World) -> None:
    source = (
        "import shutil\nshutil.copy(image_path, output_dir + '/turned.jpg')\nimage_1.save(output_dir + '/plain.png')"
    )
    world.engine.script = [code(source), final("red")]
    await world.answer(text(), image(exif(6)))
    told = results(world.engine.requests[-1]["messages"])[-1]
    rotated = load_profile("s1vl").texts.rotated_image
    assert re.search(rf"/turned\.jpg, 600x400 px{re.escape(rotated)}", told)
    assert told.count(rotated) == 1


async def test_nothing_of_pictures_is_done_on_the_event_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not their decoding, not their copying, not their writing."""
    loop_thread = threading.get_ident()
    where: dict[str, set[int]] = {}

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            where.setdefault(name, set()).add(threading.get_ident())
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    for module, name in (
        *((module, "read_picture") for module in (cells, inputs)),
        *((api, "find"), (api, "shrink"), (pictures, "identify"), (pictures, "thumbnail"), (Image, "open")),
        *((files, name) for name in ("read", "write", "copy", "list_files", "make_directory", "remove_tree")),
    ):
        watch(module, name)
    made = await make(world, CROP + "\nprint(output_dir + '/crop.png')")
    await get(world, f"{made['url']}?thumbnail=64")
    world.engine.script = [final("red")]
    await world.answer(text(), paths=[world.put("x.png", png())])
    expected = {"read_picture", "find", "shrink", "identify", "thumbnail", "open", "read", "write", "copy"}
    assert expected | {"list_files", "make_directory", "remove_tree"} == where.keys()
    assert all(loop_thread not in threads for threads in where.values())


async def test_one_tenants_pictures_do_not_hold_up_anothers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = await make(world), await make(world, key="key-bio")
    go_on = threading.Event()
    find = pictures.find

    def slow(folder: Path, name: Any) -> Any:
        if folder == world.folder():
            go_on.wait(30)
        return find(folder, name)

    monkeypatch.setattr(api, "find", slow)
    waiting = [asyncio.create_task(get(world, mine["url"])) for _ in range(20)]
    try:
        assert (await get(world, theirs["url"], key="key-bio")).status_code == 200
        assert not any(task.done() for task in waiting)
    finally:
        go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def test_a_name_that_is_not_unicode_harms_nobody(world: World) -> None:
    source = (
        "import os, io\nout = io.BytesIO()\nimage_1.save(out, 'PNG')\n"
        "with open(os.fsencode(output_dir) + b'/\\xff.png', 'wb') as f: f.write(out.getvalue())\n"
        "image_1.resize((9, 9)).save(output_dir + '/\u4e2d\u00a0\u6587.png')"
    )
    made = await make(world, source)
    assert made["path"].endswith("/\u4e2d\u00a0\u6587.png")
    assert (await get(world, made["url"])).status_code == 200
