"""Pictures of a request: `file://`, base64, uuids, and their number."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.component.engine_sim.conftest import png
from tests.engine.conftest import TEXT, error_of

SUBPATH = "The file path {} must be a subpath of `--allowed-local-media-path <path>`."
MISSING = "[Errno 2] No such file or directory: '<path>'"
NOT_AN_IMAGE = "Failed to load image: cannot identify image file <_io.BytesIO object>"


def part_of(url: str | None, **fields: object) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url} if url is not None else None, **fields}


def new_file(engine, content: bytes) -> str:
    path = engine.media / f"{uuids.uuid4().hex}.png"
    path.write_bytes(content)
    return f"file://{path}"


def test_a_file_below_the_allowed_path_is_read(engine) -> None:
    with_image = engine.chat(TEXT, part_of(new_file(engine, png(320, 320)))).json()["usage"]["prompt_tokens"]
    assert with_image - engine.chat(TEXT).json()["usage"]["prompt_tokens"] == 100 + 2


def test_a_link_to_a_file_below_the_allowed_path_is_read(engine) -> None:
    link = engine.media / uuids.uuid4().hex
    link.symlink_to(new_file(engine, png()).removeprefix("file://"))
    assert engine.chat(TEXT, part_of(f"file://{link}")).status_code == 200


def test_a_name_with_spaces_is_quoted(engine) -> None:
    path = engine.media / f"two words {uuids.uuid4().hex}.png"
    path.write_bytes(png())
    assert engine.chat(TEXT, part_of(path.as_uri())).status_code == 200


def _link_outside(media: Path) -> str:
    link = media / f"link-{uuids.uuid4().hex}"
    link.symlink_to("/etc/hostname")
    return f"file://{link}"


def _text_file(media: Path) -> str:
    path = media / f"{uuids.uuid4().hex}.txt"
    path.write_text("not an image")
    return f"file://{path}"


@pytest.mark.parametrize(
    ("url", "status", "message"),
    [
        pytest.param(lambda media: "file:///srv/s1vl/images/x.png", 400, SUBPATH.format("<path>"), id="outside"),
        # Paths are masked by a pattern, which this one does not fit.
        pytest.param(lambda media: "file:///etc/hostname", 400, SUBPATH.format("/etc/hostname"), id="outside, shown"),
        pytest.param(
            lambda media: f"file://{media}/../x.png", 400, SUBPATH.format("<path>"), id="dots"
        ),
        pytest.param(_link_outside, 400, SUBPATH.format("<path>"), id="symlink"),
        pytest.param(lambda media: f"file://host{media}/x.png", 400, SUBPATH.format("host<path>"), id="host"),
        pytest.param(lambda media: f"file://{media}/absent.png", 500, MISSING, id="absent"),
        pytest.param(_text_file, 400, NOT_AN_IMAGE, id="no image in the file"),
        pytest.param(lambda media: "data:image/png;base64,aGVsbG8=", 400, NOT_AN_IMAGE, id="no image in base64"),
        pytest.param(
            lambda media: f"{media}/x.png", 400, "The URL must be either a HTTP, data or file URL.", id="path"
        ),
    ],
)  # fmt: skip
def test_images_that_are_refused(engine, url: Callable[[Path], str], status: int, message: str) -> None:
    response = engine.chat(TEXT, part_of(url(engine.media)))
    error = error_of(response, status)
    assert error["message"] == message
    assert error["type"] == ("BadRequestError" if status == 400 else "InternalServerError")


def test_the_connection_is_closed_after_an_absent_file(engine) -> None:
    """Why the orchestrator looks for the file itself, and asks again on a connection that was closed on it."""
    body = engine.body(TEXT, part_of(f"file://{engine.media}/absent.png"))
    with httpx.Client(timeout=60) as client:
        response = client.post(f"{engine.url}/v1/chat/completions", json=body)
    assert response.status_code == 500
    assert "connection" not in response.headers


def test_an_image_is_known_by_its_uuid(engine, image) -> None:
    name = uuids.uuid4().hex
    first = engine.chat(TEXT, image(320, 320, uuid=name), cache_salt="s").json()
    again = engine.chat(TEXT, part_of(None, uuid=name), cache_salt="s")
    assert again.status_code == 200, again.text
    assert again.json()["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]


def test_a_file_is_known_by_its_uuid_when_it_is_gone(engine) -> None:
    name, url = uuids.uuid4().hex, new_file(engine, png())
    assert engine.chat(TEXT, part_of(url, uuid=name)).status_code == 200
    Path(url.removeprefix("file://")).unlink()
    assert engine.chat(TEXT, part_of(None, uuid=name)).status_code == 200


def test_an_unknown_uuid_is_a_cache_miss(engine, image) -> None:
    error = error_of(engine.chat(TEXT, image(), part_of(None, uuid=uuids.uuid4().hex)))
    assert error["message"] == "Cache miss for image at index 1 but data is not provided."


def test_the_image_cache_counts(engine, image) -> None:
    name = uuids.uuid4().hex
    names = ("vllm:mm_cache_queries_total", "vllm:mm_cache_hits_total")
    seen = []
    for _ in range(2):
        before = [engine.metric(series) for series in names]
        assert engine.chat(TEXT, image(uuid=name)).status_code == 200
        seen.append(tuple(engine.metric(series) - old for series, old in zip(names, before, strict=True)))
    assert seen == [(1, 0), (1, 1)]


def test_fifteen_images_are_taken_and_sixteen_refused(engine, image) -> None:
    part = image()
    assert engine.chat(TEXT, *[part] * 15).status_code == 200
    error = error_of(engine.chat(TEXT, *[part] * 16))
    assert error["message"] == "At most 15 image(s) may be provided in one prompt. (parameter=image)"
    assert error["param"] == "image"


def test_images_are_counted_over_the_history(engine, image) -> None:
    messages = [
        {"role": "user", "content": [image()] * 8},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [image()] * 8},
    ]
    assert error_of(engine.chat(messages=messages))["param"] == "image"


def test_a_video_is_refused(engine) -> None:
    error = error_of(engine.chat(TEXT, {"type": "video_url", "video_url": {"url": "file:///x.mp4"}}))
    assert error["message"] == "At most 0 video(s) may be provided in one prompt. (parameter=video)"
