"""Bad input of many kinds, and failing neighbours; test_every_error.py has one of each."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image

from s1vl_orchestrator.api import bodies
from s1vl_orchestrator.errors import ErrorCode
from s1vl_orchestrator.service import Service
from tests.component.orchestrator.conftest import World, code, final, image, png, text, until
from tests.component.orchestrator.fakes import Fail, served


def check(response: httpx.Response, code: ErrorCode) -> dict[str, Any]:
    """The error's documented form; returns its object."""
    error: dict[str, Any] = response.json()["error"]
    assert (response.status_code, error["code"]) == (code.status, code.value), response.text
    assert set(error) == {"code", "message", "details"}
    assert error["message"]
    if code.status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return error


def bomb() -> bytes:
    """A PNG of a few bytes that claims 50000x50000 px."""
    head = png()
    header = head[16:24]
    ihdr = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + head[24:29]
    assert header
    return head[:12] + ihdr + zlib.crc32(ihdr).to_bytes(4, "big") + head[33:]


BAD_BODIES: list[tuple[str, Any, ErrorCode]] = [
    ("not a list", {"messages": "what?"}, ErrorCode.INVALID_REQUEST),
    ("empty", {"messages": []}, ErrorCode.INVALID_REQUEST),
    ("a list", [], ErrorCode.INVALID_REQUEST),
    ("unknown part", {"messages": [{"type": "video_url"}]}, ErrorCode.INVALID_REQUEST),
    ("mixed", {"messages": [text(), {"role": "user", "content": "x"}, image(png())]}, ErrorCode.INVALID_REQUEST),
    ("no text", {"messages": [image(png())]}, ErrorCode.INVALID_REQUEST),
    ("turns", {"messages": [text(), image(png())], "max_turns": 0}, ErrorCode.INVALID_REQUEST),
    ("deadline", {"messages": [text(), image(png())], "deadline_seconds": -1}, ErrorCode.INVALID_REQUEST),
    ("ends with assistant", {"messages": [{"role": "assistant", "content": "x"}]}, ErrorCode.INVALID_REQUEST),
    ("stream", {"messages": [text(), image(png())], "stream": "yes please"}, ErrorCode.INVALID_REQUEST),
    ("no image", {"messages": [text()]}, ErrorCode.NO_IMAGE),
    ("too much text", {"messages": [text("x " * 60_000), image(png())]}, ErrorCode.PROMPT_TOO_LONG),
    ("far too much text", {"messages": [text("x" * 500_000), image(png())]}, ErrorCode.PROMPT_TOO_LONG),
    ("16 embedded", {"messages": [text(), *[image(png())] * 16]}, ErrorCode.TOO_MANY_IMAGES),
    (
        "16 together",
        {"messages": [text(), *[image(png())] * 15], "image_path_list": ["/data/images/ok.png"] * 2},
        ErrorCode.TOO_MANY_IMAGES,
    ),
]


@pytest.mark.parametrize(("body", "expected"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES])
async def test_bad_bodies(world: World, body: Any, expected: ErrorCode) -> None:
    world.put("ok.png", png("green"))
    check(await world.http.post("/process", json=body), expected)
    world.assert_clean()
    assert not world.engine.requests


NO_JSON = [
    b"",
    b"{",
    b'{"messages": NaN}',
    b"[" * 100_000,
    b"\xff\xfe",
    b'{"a": 1e999}',
    b'{"metadata": {"a": 1e999}}',
]


@pytest.mark.parametrize("raw", NO_JSON)
async def test_bodies_that_are_not_json(world: World, raw: bytes) -> None:
    check(await world.http.post("/process", content=raw), ErrorCode.INVALID_REQUEST)


BAD_IMAGES = {
    "not base64": "data:image/png;base64,!!!",
    "empty": "data:image/png;base64,",
    "no picture": "data:image/png;base64," + base64.b64encode(b"no picture").decode(),
    "truncated": "data:image/png;base64," + base64.b64encode(png(size=(500, 500))[:-30]).decode(),
    "bomb": "data:image/png;base64," + base64.b64encode(bomb()).decode(),
    "long and thin": "data:image/png;base64," + base64.b64encode(png(size=(3000, 5))).decode(),
    "svg": "data:image/svg+xml;base64," + base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").decode(),
    "http": "http://169.254.169.254/latest/meta-data",
    "https": "https://example.org/x.png",
    "file of another host": "file://example.org/data/images/x.png",
    "nothing": "",
    "relative": "x.png",
}


@pytest.mark.parametrize("url", BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
async def test_bad_images(world: World, url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    check(await world.ask(text(), part), ErrorCode.INVALID_IMAGE)
    world.assert_clean()


async def test_the_404_is_the_same_for_absent_and_forbidden(world: World) -> None:
    world.put("secret.png", png(), "bio")
    (world.folder() / "link.png").symlink_to(world.folder("bio") / "secret.png")
    (world.folder() / "up").symlink_to(world.root)
    (world.folder() / "directory.png").mkdir()
    paths = [
        "/data/images/absent.png",
        "/data/images/../bio/secret.png",
        "/data/images/link.png",
        "/data/images/up/bio/secret.png",
        "/data/images/directory.png",
        "/data/images/%2e%2e/bio/secret.png",
        "/data/images/x\0.png",
        "/data/images/" + "a" * 5000,
        "/data/images/\ud800.png",
        "/data/images",
        "/data/imagesx/y.png",
        "/etc/passwd",
        str(world.folder("bio") / "secret.png"),
        "secret.png",
    ]
    answers = set()
    for path in paths:
        # Hand-made JSON: lone surrogates do not survive an ordinary client.
        body = json.dumps({"messages": [text()], "image_path_list": [path]}, ensure_ascii=True).encode()
        error = check(await world.http.post("/process", content=body), ErrorCode.IMAGE_NOT_FOUND)
        shown = path.encode(errors="replace").decode()
        answers.add(error["message"].replace(shown if len(shown) < 300 else f"{shown[:300]}...", "PATH"))
    assert answers == {"There is no picture at PATH."}
    world.assert_clean()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-API-Key": "wrong"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic a2V5LWNoZW0="},
        {"X-API-Key": "wrong", "X-Tenant": "chem"},
    ],
)
async def test_wrong_keys(world: World, headers: dict[str, str]) -> None:
    response = await world.http.post("/process", json={"messages": [text(), image(png())]}, headers=headers)
    check(response, ErrorCode.UNAUTHORIZED)
    assert response.headers["www-authenticate"] == "Bearer"


async def test_no_key_without_an_anonymous_tenant(world: World) -> None:
    world.config["anonymousTenant"] = ""
    world.write_config()
    await until(lambda: world.service.snapshot.config.anonymous_tenant == "")  # type: ignore[union-attr]
    check(await world.ask(text(), image(png())), ErrorCode.UNAUTHORIZED)
    assert (await world.ask(text(), image(png()), key="key-chem")).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_cap(world: World, monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1_000_000)

    async def stream() -> Any:
        for _ in range(40):
            yield b" " * 100_000

    content = stream() if chunked else b" " * 4_000_000
    error = check(await world.http.post("/process", content=content), ErrorCode.BODY_TOO_LARGE)
    assert error["details"]["limit_bytes"] == 1_000_000


async def test_rate_and_queue(world: World) -> None:
    limits = world.config["tenants"][0]["limits"]
    limits.update(concurrentRequests=1, queuedRequests=1)
    world.write_config()
    await until(lambda: world.service.snapshot.config.tenants[0].limits.queued_requests == 1)  # type: ignore[union-attr]
    world.engine.script = [Fail(-1)]
    chem = world.service.tenants["chem"]
    running = [asyncio.create_task(world.ask(text(), image(png()))) for _ in range(2)]
    await until(lambda: (chem.admission.running, chem.admission.waiting) == (1, 1))
    check(await world.ask(text(), image(png())), ErrorCode.QUEUE_FULL)
    # Another tenant does not notice.
    world.engine.script = [final("fine")]
    assert (await world.answer(text(), image(png()), key="key-bio"))["answer"] == "fine"
    for task in running:
        task.cancel()
    await until(lambda: chem.admission.running == 0)

    limits.update(requestsPerMinute=1)
    world.write_config()
    await until(lambda: world.service.snapshot.config.tenants[0].limits.requests_per_minute == 1)  # type: ignore[union-attr]
    assert (await world.ask(text(), image(png()))).status_code == 200
    check(await world.ask(text(), image(png())), ErrorCode.RATE_LIMITED)


@pytest.mark.parametrize("step", [Fail(500, "boom"), Fail(404, "The model `x` does not exist."), Fail(400, "odd")])
async def test_an_engine_that_refuses(world: World, step: Fail) -> None:
    world.engine.script = [step]
    error = check(await world.ask(text(), image(png())), ErrorCode.ENGINE_UNAVAILABLE)
    assert step.message in error["message"]
    assert len(world.engine.requests) == 1
    world.assert_clean()


async def test_an_engine_that_is_down(world: World) -> None:
    world.config["engine"]["url"] = "http://127.0.0.1:1"
    world.write_config()
    await until(lambda: world.service.snapshot.config.engine.url.endswith(":1"))  # type: ignore[union-attr]
    check(await world.ask(text(), image(png()), deadline_seconds=1), ErrorCode.ENGINE_UNAVAILABLE)
    world.assert_clean()
    # The canary, which a new configuration sets off, has sessions of its own.
    assert not [grants for grants in world.sandboxes["chem"].grants.values() if "/jobs/" in grants["cwd"]]


@pytest.mark.parametrize(
    "step",
    [Fail(503), Fail(429), Fail(502), Fail(504), Fail(500, "cannot schedule new futures after shutdown"), Fail(0)],
    ids=["503", "429", "502", "504", "draining", "broken stream"],
)
async def test_passing_engine_failures_are_tried_again(world: World, step: Fail) -> None:
    world.engine.script = [step, final("red")]
    result = await world.answer(text(), image(png()))
    assert result["turns"][0]["engine"]["attempts"] == 2


async def test_an_engine_that_fails_in_the_middle(world: World) -> None:
    world.engine.script = ["x\n</think>\n\nA first idea.\n<code>\nprint(1)\n</code>", Fail(500, "boom")]
    result = await world.answer(text(), image(png()))
    assert result["stop_reason"] == "engine_error"
    assert result["messages"][-1] == {"role": "assistant", "content": "A first idea."}
    assert "boom" in result["detail"]


async def test_an_engine_with_a_smaller_image_limit(world: World) -> None:
    world.engine.script = [Fail(400, "At most 2 image(s) may be provided in one prompt. (parameter=image)")]
    check(await world.ask(text(), image(png()), image(png("blue"))), ErrorCode.TOO_MANY_IMAGES)


TOO_LONG = [
    "This model's maximum context length is 32768 tokens. However, your prompt contains at least 32769 input tokens, "
    "which exceeds this limit even without any output tokens.",
    "Input length (40825) exceeds model's maximum context length (32768).",
]


@pytest.mark.parametrize("message", TOO_LONG)
async def test_an_engine_that_counts_more_than_we_do(world: World, message: str) -> None:
    world.engine.script = [Fail(400, message)]
    check(await world.ask(text(), image(png())), ErrorCode.PROMPT_TOO_LONG)


@pytest.mark.parametrize("message", [*TOO_LONG, "At most 1 image(s) may be provided in one prompt."])
async def test_one_shrinking_step_and_then_the_answer(world: World, message: str) -> None:
    world.engine.script = [
        code("image_1.rotate(90).resize((50, 60)).save(output_dir + '/a.png')"),
        Fail(400, message),
        final("x"),
    ]
    result = await world.answer(text(), image(png()))
    assert (result["answer"], result["stop_reason"]) == ("x", "context_full")


async def test_older_engines_refuse_max_tokens_and_say_what_they_counted(world: World) -> None:
    message = (
        "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 32768 "
        "tokens and your request has 26000 input tokens (8192 > 32768 - 26000)."
    )
    world.engine.script = [Fail(400, message), final("x")]
    assert (await world.answer(text(), image(png())))["answer"] == "x"
    assert world.engine.requests[1]["max_tokens"] < 32_768 - 26_000


async def test_a_silent_engine_is_a_504(world: World) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(30)

    async with served(silent) as url:
        world.config["engine"]["url"] = url
        world.write_config()
        await until(lambda: world.service.snapshot.config.engine.url == url)  # type: ignore[union-attr]
        check(await world.ask(text(), image(png()), deadline_seconds=1), ErrorCode.DEADLINE_EXCEEDED)
    world.assert_clean()


async def test_a_volume_that_refuses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from s1vl_orchestrator import workspace

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.files, "write", full)
    error = check(await world.ask(text(), image(png())), ErrorCode.STORAGE_UNAVAILABLE)
    assert "No space left" in error["message"]
    monkeypatch.undo()
    world.assert_clean()


async def test_a_sandbox_that_fails_in_a_job(world: World) -> None:
    def break_it(_: Any) -> str:
        world.sandboxes["chem"].broken = True
        return code("print(1)")

    world.engine.script = [break_it, final("blind")]
    result = await world.answer(text(), image(png()))
    assert (result["stop_reason"], result["answer"]) == ("sandbox_unavailable", "blind")


async def test_defects_are_json_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: Any) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(Service, "authenticate", defect)
    error = check(await world.ask(text(), image(png())), ErrorCode.INTERNAL_ERROR)
    assert error["details"]["request_id"]
    assert "defect" not in error["message"]


async def test_text_that_utf8_does_not_have(world: World) -> None:
    raw = json.dumps({"messages": [text("a \ud800 b"), image(png())], "metadata": {"a": "\ud800"}}).encode()
    check(await world.http.post("/process", content=raw), ErrorCode.INVALID_REQUEST)
    world.engine.script = [code("print(chr(0xd800))"), final("\ud83d broken")]
    raw = json.dumps({"messages": [text("a \ud800 b"), image(png())]}).encode()
    assert (await world.http.post("/process", content=raw)).json()["answer"] == "? broken"


async def test_pictures_of_many_kinds_work(world: World) -> None:
    kinds = []
    for mode, file_format in [
        ("CMYK", "JPEG"),
        ("I;16", "PNG"),
        ("RGBA", "PNG"),
        ("P", "GIF"),
        ("1", "TIFF"),
        ("L", "WEBP"),
    ]:
        out = io.BytesIO()
        Image.new(mode, (70, 50)).save(out, file_format)
        kinds.append(image(out.getvalue()))
    frames = [Image.new("P", (60, 60), n) for n in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    kinds.append(image(out.getvalue()))
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40)).save(out, "JPEG", exif=exif)
    kinds.append(image(out.getvalue()))
    await world.answer(text(), *kinds)
    table = world.engine.requests[0]["messages"][1]["content"][-1]["text"]
    assert "80x40 px (shown to you at 40x80) (stored rotated" in table
