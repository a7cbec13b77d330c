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
