"""A whole job in every protocol, and in one of the user's own, over HTTP and with code that really runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from s1vl_orchestrator.protocol.profile import built_in_names, load_profile
from tests.component.orchestrator.conftest import World, final, image, png, text, until

VARIABLES = {"pyvision": "image_clue_0"}


def own_protocol() -> str:
    tags = {"name": "own", "code_open": "[[run]]", "code_close": "[[/run]]", "stop": ["[[/run]]"]}
    return yaml.safe_dump({**load_profile("s1vl").model_dump(mode="json"), **tags, "image_names": ["picture_{n}"]})


def say(name: str, source: str) -> str:
    if name == "tool_call":
        call = json.dumps({"name": "code", "arguments": {"code": source}})
        return f"I look.\n</think>\n\n<tool_call>\n{call}\n</tool_call>"
    opened, closed = ("[[run]]", "[[/run]]") if name == "own" else ("<code>", "</code>")
    return f"I look.\n</think>\n\n{opened}\n```python\n{source}\n```\n{closed}"


def flat(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def by_uuid(messages: list[dict[str, Any]]) -> list[Any]:
    """Messages without the pictures' URLs: the engine gets each of them once."""
    return [
        content
        if isinstance(content := message["content"], str)
        else [{key: value for key, value in part.items() if key != "image_url"} for part in content]
        for message in messages
    ]


@pytest.mark.parametrize("name", [*built_in_names(), "own"])
async def test_a_job(world: World, name: str) -> None:
    source = own_protocol() if name == "own" else name
    world.config["protocol"] = source
    world.write_config()
    await until(lambda: world.service.snapshot.config.protocol == source, "the new protocol")
    profile = load_profile(source)
    variable = VARIABLES.get(name, "picture_1" if name == "own" else "image_1")
    code = f"print({variable}.size)\n{variable}.resize((40, 40)).save('/tmp/small.png')"
    world.engine.script = [say(name, code), final("red")]
    result = await world.answer(text(), image(png(size=(96, 64))))
    assert (result["answer"], result["stop_reason"]) == ("red", "answer")
    assert [picture["path"].rpartition("/")[2] for picture in result["images"]] == ["small.png"]
    first, second = (request["messages"] for request in world.engine.requests)
    assert by_uuid(second[: len(first)]) == by_uuid(first)
    shown = second[-1]
    assert shown["role"] == profile.result_role
    assert flat(shown).startswith(profile.result_open + profile.result_text.format(text="(96, 64)"))
    assert flat(shown).endswith(profile.result_close)
    assert [part["type"] for part in shown["content"]].count("image_url") == 1
    assert world.engine.requests[0]["stop"] == list(profile.stop)


async def use(world: World, name: str) -> None:
    world.config["protocol"] = name
    world.write_config()
    await until(lambda: world.service.snapshot.config.protocol == name, "the new protocol")


def last(world: World) -> str:
    """The last result that the engine was shown."""
    return flat(world.engine.requests[-1]["messages"][-1])


MAKE = """
image_clue_0.resize((40, 30)).save(output_dir + '/a.png')
image_clue_1.resize((20, 10)).save(output_dir + '/b.png')
"""
LOOK = "print(image_clue_2.size, image_clue_3.size, image_clue_3.getpixel((0, 0)))"


async def test_pictures_that_pyvisions_code_makes_are_open_by_the_names_in_their_captions(world: World) -> None:
    await use(world, "pyvision")
    again = "image_clue_2.crop((0, 0, 8, 9)).save(output_dir + '/c.png')"
    seen = "print(image_clue_4.size, '_s1vl_name' in globals())"
    world.engine.script = [*(say("pyvision", source) for source in (MAKE, LOOK, again, seen)), final("red")]
    result = await world.answer(text(), image(png(size=(96, 64))), image(png("blue")))
    assert [turn["cell"] and turn["cell"]["status"] for turn in result["turns"]] == ["ok"] * 4 + [None]
    shown = [flat(request["messages"][-1]) for request in world.engine.requests[1:]]
    for name, file, size in (("2", "a", "40x30"), ("3", "b", "20x10")):
        assert (
            f"<image_clue_{name}> /mnt/data/images/.s1vl/jobs/{result['id']}/output/{file}.png, {size} px" in shown[0]
        )
    assert "(40, 30) (20, 10) (0, 0, 255)" in shown[1]
    assert "<image_clue_4> " in shown[2]
    assert "(8, 9) False" in shown[3]


@pytest.mark.parametrize("how", ["killed", "forgotten", "forgotten at once"])
async def test_their_names_are_there_in_a_session_that_is_opened_anew(world: World, how: str) -> None:
    await use(world, "pyvision")
    box = world.sandboxes["chem"]
    look = say("pyvision", LOOK)

    def forget(_: object) -> str:
        box.forget()
        return say("pyvision", "print('anew')")

    lose = say("pyvision", "import os; os._exit(1)") if how == "killed" else forget
    seen = [] if how == "forgotten at once" else [say("pyvision", "print(image_clue_2.size)")]
    world.engine.script = [say("pyvision", MAKE), *seen, lose, look, final("red")]
    await world.answer(text(), image(png(size=(96, 64))), image(png("blue")))
    shown = [flat(request["messages"][-1]) for request in world.engine.requests]
    assert load_profile("pyvision").texts.kernel_lost in shown[-2]
    assert "(40, 30) (20, 10) (0, 0, 255)" in shown[-1]


CHANGED = [
    "image_clue_0.resize((5, 5)).save(output_dir + '/a.png')",
    "import os; os.remove(output_dir + '/a.png')",
    "import os; os.remove(output_dir + '/a.png'); os.mkfifo(output_dir + '/a.png')",
    "import os; os.truncate(output_dir + '/a.png', 1 << 40)",
]


@pytest.mark.parametrize("change", CHANGED, ids=range(len(CHANGED)))
async def test_a_file_that_is_another_one_by_now_gets_no_name(world: World, change: str) -> None:
    """Changed while its first session was there, and asked for in the next."""
    await use(world, "pyvision")
    lost = "import os; os._exit(1)"
    seen = "print('image_clue_2' in globals(), image_clue_3.size)"
    world.engine.script = [*(say("pyvision", source) for source in (MAKE, change, lost, seen)), final("red")]
    await world.answer(text(), image(png(size=(96, 64))), image(png("blue")))
    assert "False (20, 10)" in last(world)


async def test_what_code_has_named_so_itself_stays(world: World) -> None:
    await use(world, "pyvision")
    taken = f"{MAKE}\nimage_clue_2 = open = _path = 'mine'"
    seen = "print(image_clue_2, open, _path, image_clue_3.size)"
    world.engine.script = [say("pyvision", taken), say("pyvision", seen), final("red")]
    await world.answer(text(), image(png(size=(96, 64))), image(png("blue")))
    assert "mine mine mine (20, 10)" in last(world)
