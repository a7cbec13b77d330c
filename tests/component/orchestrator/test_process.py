"""`POST /process` from end to end."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.component.orchestrator.conftest import World, code, final, image, png, results, text, until
from tests.component.orchestrator.fakes import Fail

CROP = """
from PIL import Image
picture = Image.open(image_path)
crop = picture.crop((0, 0, 32, 32)).resize((128, 128))
crop.save(output_dir + "/crop.png")
print(picture.size, picture.getpixel((0, 0)))
print(output_dir + "/crop.png")
"""


def read_colour(messages: list[dict[str, Any]]) -> str:
    return final("red" if "(255, 0, 0)" in results(messages)[-1] else "unknown")


async def test_the_card_snippet(world: World, tmp_path: Path) -> None:
    world.engine.script = [code(CROP), read_colour]
    world.put("your_image.png", png(size=(400, 300)))
    (tmp_path / "image.png").write_bytes(png(size=(400, 300)))

    def snippet() -> str:
        with open(tmp_path / "image.png", "rb") as f:  # noqa: PTH123 - the card's own words
            image_b64 = base64.b64encode(f.read()).decode("utf-8")
        messages = [
            {"type": "text", "text": "Please carefully analyze this scientific image."},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image_b64}"}},
        ]
        response = httpx.post(
            f"{world.url}/process",
            json={
                "messages": messages,
                "image_path_list": ["/data/images/your_image.png"],  # Absolute host path
            },
            timeout=300,
        )
        result = response.json()
        # The final answer is the last message with role="assistant"
        final = [m for m in result["messages"] if m["role"] == "assistant"][-1]
        content: str = final["content"]
        return content

    assert await asyncio.to_thread(snippet) == "red"
    prompt = world.engine.requests[0]["messages"]
    assert [m["role"] for m in prompt] == ["system", "user"]
    # One picture, although it came both ways; in the place where the client put it.
    assert [part["type"] for part in prompt[1]["content"]] == ["text", "image_url", "text"]
    assert "/mnt/data/images/your_image.png, 400x300 px" in prompt[1]["content"][2]["text"]


async def test_the_whole_answer(world: World) -> None:
    world.engine.script = [code(CROP), read_colour]
    path = world.put("x.png", png(size=(400, 300)))
    result = await world.answer(text(), paths=[path], metadata={"mine": 1})
    assert result["answer"] == "red"
    assert result["stop_reason"] == "answer"
    assert result["metadata"] == {"mine": 1}
    assert [m["role"] for m in result["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert result["messages"][-1]["content"] == "red"
    assert "/mnt/data/images" not in json.dumps(result)
    [made] = result["images"]
    assert made["path"] == f"/data/images/.s1vl/jobs/{result['id']}/output/crop.png"
    assert (made["width"], made["height"]) == (128, 128)
    with Image.open(world.folder() / made["path"].removeprefix("/data/images/")) as crop:
        assert crop.size == (128, 128)
    assert [turn["cell"] and turn["cell"]["status"] for turn in result["turns"]] == ["ok", None]
    assert result["usage"]["prompt_tokens"] == 2000
    await until(lambda: not world.sandboxes["chem"].sessions, "no session left")
    world.assert_clean(jobs=1)


async def test_the_prompt_that_the_engine_gets(world: World) -> None:
    world.engine.script = [code(CROP), final("red")]
    await world.answer(text(), paths=[world.put("x.png", png(size=(4000, 3000)))])
    first, second = world.engine.requests
    assert first["stream"]
    assert first["include_stop_str_in_output"]
    assert first["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert first["stop"] == ["</code>", "</tool_call>"]
    [part] = [p for p in first["messages"][1]["content"] if p["type"] == "image_url"]
    # A copy outside of every sandbox's mount, scaled down to the budget.
    assert part["image_url"]["url"].startswith(f"file://{world.root}/.s1vl/engine/")
    assert "shown to you at 1856x1376" in first["messages"][1]["content"][-1]["text"]
    assert len(part["uuid"]) == 32
    # Append-only, thinking inlined, result as role tool.
    known = json.loads(json.dumps(first["messages"]))
    next(p for p in known[1]["content"] if p["type"] == "image_url")["image_url"] = None
    assert second["messages"][: len(known)] == known
    assistant, tool = second["messages"][len(first["messages"]) :]
    assert assistant["content"].startswith("<think>\nI look.\n</think>\n\n<code>")
    assert tool["role"] == "tool"
    assert [p["type"] for p in tool["content"]] == ["text", "text", "image_url", "text"]
    assert first["cache_salt"] == second["cache_salt"]


def sent_whole(request: dict[str, Any]) -> list[bool]:
    """For each picture of a prompt, whether it was sent (True) or only named."""
    parts = [p for m in request["messages"] if isinstance(m["content"], list) for p in m["content"]]
    return [p["image_url"] is not None for p in parts if p["type"] == "image_url"]


async def test_pictures_are_sent_once(world: World) -> None:
    more = code("image_1.resize((70, 70)).save(output_dir + '/more.png')")
    world.engine.script = [code(CROP), more, final("red")]
    await world.answer(text(), paths=[world.put("x.png", png(size=(400, 300)))])
    assert [sent_whole(request) for request in world.engine.requests] == [[True], [False, True], [False, False, True]]


@pytest.mark.parametrize("message", ["Cache miss for image at index 0 but data is not provided.", "image_url: no null"])
async def test_pictures_that_the_engine_does_not_have_are_sent_again(world: World, message: str) -> None:
    """It forgot them, or another replica answers. A version that does not take names is not tried again."""
    world.engine.unknown_picture = message

    def forget(_: Any) -> str:
        world.engine.known.clear()
        return code("print(1)")

    world.engine.script = [forget, code("print(2)"), final("red")]
    assert (await world.answer(text(), image(png())))["answer"] == "red"
    last = message.startswith("Cache miss")
    assert [sent_whole(r) for r in world.engine.requests] == [[True], [False], [True], [not last]]


async def test_tenants_get_different_names_in_the_engine(world: World) -> None:
    for tenant in ("chem", "bio"):
        await world.answer(text(), paths=[world.put("x.png", png(), tenant)], key=f"key-{tenant}")
    chem, bio = world.engine.requests
    assert chem["cache_salt"] != bio["cache_salt"]
    assert _image_part(chem)["uuid"] != _image_part(bio)["uuid"]


def _image_part(request: dict[str, Any]) -> dict[str, Any]:
    return next(p for p in request["messages"][1]["content"] if p["type"] == "image_url")


async def test_base64_without_a_path_leaves_nothing_when_nothing_was_made(world: World) -> None:
    world.engine.script = [code("print(image_path, image_1.size, len(image_paths))"), final("red")]
    result = await world.answer(text(), image(png()))
    assert f"/data/images/.s1vl/jobs/{result['id']}/inputs/image_1.png (64, 64) 1" in result["messages"][2]["content"]
    world.assert_clean()


async def test_base64_stands_in_for_a_path_that_is_not_there(world: World) -> None:
    await world.answer(text(), image(png()), paths=["/data/images/absent.png"])
    assert not (world.folder() / "absent.png").exists()
    assert "/inputs/image_1.png" in world.engine.requests[0]["messages"][1]["content"][-1]["text"]


async def test_role_messages_and_several_images(world: World) -> None:
    messages = [
        {"role": "system", "content": "Answer in French."},
        {"role": "user", "content": [image(png("red")), text("And this is /data/images/b.png ?")]},
        {"role": "assistant", "content": "I wait."},
        {"role": "user", "content": "Compare."},
    ]
    paths = [world.put("b.png", png("blue")), world.put("c.png", png("green"))]
    await world.answer(*messages, paths=paths)
    prompt = world.engine.requests[0]["messages"]
    assert [m["role"] for m in prompt] == ["system", "user", "assistant", "user"]
    assert prompt[0]["content"].endswith("Answer in French.")
    assert "/mnt/data/images/b.png" in prompt[1]["content"][1]["text"]
    assert [p["type"] for p in prompt[3]["content"]] == ["image_url", "image_url", "text", "text"]


async def test_code_in_thinking_without_content(world: World) -> None:
    world.engine.script = [code("print(6 * 7)", thought="hm "), lambda m: final(results(m)[-1].split()[1])]
    result = await world.answer(text(), image(png()))
    assert result["answer"] == "42"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_an_engine_that_ignores_stop_strings_is_cut(world: World, name: str) -> None:
    world.engine.obey_stop = False
    world.engine.field_name = name
    invented = code("print(1)") + "<sandbox_output>invented</sandbox_output>" + "blah " * 2000
    world.engine.script = [invented, lambda m: final(results(m)[-1].split()[1])]
    result = await world.answer(text(), image(png()))
    assert result["answer"] == "1"
    assert "invented" not in json.dumps(world.engine.requests[1]["messages"])
    assert world.engine.aborted == 1


async def test_max_turns_forces_an_answer(world: World) -> None:
    world.engine.script = [code("print(1)"), code("print(2)"), "I had to.\n</think>\n\n<answer>two</answer>"]
    result = await world.answer(text(), image(png()), max_turns=2)
    assert (result["stop_reason"], result["answer"], len(result["turns"])) == ("max_turns", "two", 3)
    assert "stop" not in world.engine.requests[-1]
    assert "final answer now" in results(world.engine.requests[-1]["messages"])[-1]


async def test_the_same_code_is_nudged_once_and_then_the_answer_forced(world: World) -> None:
    world.engine.script = [code("print(1)")] * 3 + [final("one")]
    result = await world.answer(text(), image(png()))
    assert result["answer"] == "one"
    assert [turn["problem"] for turn in result["turns"]] == ["", "repeated_code", "repeated_code", ""]
    assert sum("print(1)" in c for c in world.sandboxes["chem"].codes) == 1


async def test_two_malformed_turns_force_the_answer(world: World) -> None:
    broken = 'x\n</think>\n\n<tool_call>{"arguments": </tool_call>'
    world.engine.script = [broken, broken, final("none")]
    result = await world.answer(text(), image(png()))
    assert result["answer"] == "none"
    assert "not valid JSON" in results(world.engine.requests[1]["messages"])[0]


async def test_errors_go_back_to_the_model(world: World) -> None:
    world.engine.script = [code("1/0"), final("oops")]
    await world.answer(text(), image(png()))
    assert "ZeroDivisionError: division by zero" in results(world.engine.requests[1]["messages"])[0]


async def test_a_cell_that_runs_too_long_ends_with_its_session(world: World) -> None:
    world.config["sandbox"]["executionTimeoutSeconds"] = 1
    world.write_config()
    await until(lambda: world.service.snapshot.config.sandbox.execution_timeout_seconds == 1)  # type: ignore[union-attr]
    opened = world.sandboxes["chem"].opened
    world.engine.script = [code("x = 1\nwhile True: pass"), code("print('x' in dir(), image_path)"), final("ok")]
    result = await world.answer(text(), image(png()))
    first, second = results(world.engine.requests[2]["messages"])
    assert "stopped after 1 s" in first
    assert "False /mnt/data/images" in second
    assert [t["cell"] and t["cell"]["status"] for t in result["turns"]] == ["timeout", "ok", None]
    assert world.sandboxes["chem"].opened >= opened + 2
    world.assert_clean()


async def test_a_kernel_that_dies_is_replaced_and_the_model_told(world: World) -> None:
    world.engine.script = [code("x = 1"), code("import os; os._exit(1)"), code("print(x)"), final("ok")]
    await world.answer(text(), image(png()))
    told = results(world.engine.requests[3]["messages"])
    assert "variables of earlier code are lost" in told[1]
    assert "NameError" in told[2]


MANY = """
from PIL import Image
open(output_dir + "/fake.png", "w").write("no picture")
for n in range(6):
    Image.new("RGB", (40, 40 + n)).save(f"{output_dir}/p{n}.png")
Image.new("RGB", (40, 40)).save("copy.png")
import os
os.symlink("/etc/passwd", output_dir + "/link.png")
print("/etc/passwd.png", image_path, "../../../../outside.png")
"""


async def test_pictures_are_counted_deduplicated_and_only_our_own(world: World) -> None:
    world.put("outside.png", png())
    world.engine.script = [
        code(MANY),
        code("display_png(open(output_dir + '/p0.png','rb').read()); print(1)"),
        final("ok"),
    ]
    result = await world.answer(text(), paths=[world.put("x.png", png())])
    assert [Path(i["path"]).name for i in result["images"]] == ["p0.png", "p1.png", "p2.png", "p3.png"]
    told = results(world.engine.requests[1]["messages"])[0]
    assert "fake.png cannot be shown" in told
    assert "2 more pictures were made" in told


async def test_displayed_pictures_become_files(world: World) -> None:
    show = """
import io
from PIL import Image
f = io.BytesIO()
Image.new("L", (50, 60)).save(f, "PNG")
display_png(f.getvalue())
"""
    world.engine.script = [code(show), final("ok")]
    result = await world.answer(text(), image(png()))
    assert [(Path(i["path"]).name, i["width"], i["height"]) for i in result["images"]] == [("displayed_1.png", 50, 60)]
    assert (world.folder() / result["images"][0]["path"].removeprefix("/data/images/")).is_file()


async def test_folders_that_models_hard_code_are_the_jobs_own(world: World) -> None:
    source = "image_1.save('/mnt/data/temp_processed_images/a.png')"
    world.engine.script = [code(source), final("ok")]
    result = await world.answer(text(), image(png()))
    assert result["images"][0]["path"].endswith("/output/a.png")


async def test_images_over_the_limit_push_out_the_oldest_made_and_force_the_answer(world: World) -> None:
    def make(n: int) -> str:
        return code(f"for i in range(4): image_1.resize((40 + {n}, 40 + i)).save(output_dir + '/{n}-%d.png' % i)")

    world.engine.script = [make(1), make(2), make(3), make(4), final("ok")]
    result = await world.answer(text(), image(png()))
    assert (result["answer"], result["stop_reason"]) == ("ok", "context_full")
    assert "stop" not in world.engine.requests[-1]
    prompt = world.engine.requests[-1]["messages"]
    parts = [p for m in prompt if isinstance(m["content"], list) for p in m["content"]]
    assert sum(p["type"] == "image_url" for p in parts) == 15
    assert sum("no longer shown" in p.get("text", "") for p in parts) == 2


async def test_a_full_context_forces_the_answer(world: World) -> None:
    world.engine.prompt_tokens = 28_500
    world.engine.script = [code("print(1)"), final("enough")]
    result = await world.answer(text(), image(png()))
    assert (result["stop_reason"], result["answer"]) == ("context_full", "enough")
    assert world.engine.requests[1]["max_tokens"] + 28_500 < 32_768


async def test_deadline_leaves_time_for_an_answer(world: World) -> None:
    world.engine.script = [Fail(-1), final("in time")]
    result = await world.answer(text(), image(png()), deadline_seconds=3)
    assert (result["stop_reason"], result["answer"]) == ("deadline", "in time")
    assert result["turns"][0]["ended"] == "time"


@pytest.mark.parametrize("listed", [True, False])
async def test_a_jobs_session_reaches_its_pictures_and_its_folder(world: World, listed: bool) -> None:
    paths = [world.put("sub/a.png", png())] if listed else []
    world.put("secret.png", png("blue"))
    world.engine.script = [code("open(output_dir + '/x.txt', 'w').close()"), final("red")]
    answer = await world.answer(text(), *([] if listed else [image(png("green"))]), paths=paths)
    folder = f"/mnt/data/images/.s1vl/jobs/{answer['id']}"
    (grants,) = [g for g in world.sandboxes["chem"].grants.values() if g["cwd"] == f"{folder}/output"]
    picture = "/mnt/data/images/sub/a.png" if listed else f"{folder}/inputs/image_1.png"
    assert grants["readable"] == [picture, folder]


async def test_a_session_that_is_opened_anew_gets_its_grants_again(world: World) -> None:
    """The sandbox opens an unknown session without a word; it must not be one that reads everything."""
    box = world.sandboxes["chem"]

    def forget(_: object) -> str:
        box.forget()
        return code("print('anew')")

    world.engine.script = [code("a = 1"), forget, final("done")]
    assert (await world.answer(text(), image(png())))["answer"] == "done"
    found = [grants for grants in box.grants.values() if grants["cwd"].endswith("/output")]
    assert found
    assert all(len(grants["readable"]) == 2 for grants in found)


async def test_the_stock_image_gets_no_field_that_it_does_not_know(world: World) -> None:
    box = world.sandboxes["chem"]
    box.boot_id = ""
    world.config["sandbox"]["profile"] = "aio"
    world.write_config()
    await until(lambda: world.service.snapshot.config.sandbox.profile == "aio")  # type: ignore[union-attr]
    box.grants.clear()
    path = world.put("a.png", png())
    world.engine.script = [code("print(6 * 7)"), final("42")]
    assert (await world.answer(text(), paths=[path]))["answer"] == "42"
    assert "42" in results(world.engine.requests[-1]["messages"])[0]
    assert [set(grants) for grants in box.grants.values() if "jobs" in grants["cwd"]] == [{"cwd"}]
