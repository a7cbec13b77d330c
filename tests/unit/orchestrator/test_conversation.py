"""Prompts are append-only: as messages, and as the text that a chat template makes of them, for every protocol."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hack.engine_sim import prompt as qwen
from s1vl_orchestrator.budget import image_tokens, text_tokens
from s1vl_orchestrator.conversation import Conversation, ShownImage
from s1vl_orchestrator.protocol.profile import Profile, built_in_names, load_profile

Messages = list[dict[str, Any]]
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def picture(name: str = "a", width: int = 640, height: int = 480) -> ShownImage:
    return ShownImage(
        {"type": "image_url", "image_url": {"url": f"file:///{name}.png"}}, f"/p/{name}.png", width, height
    )


def flat(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(IMAGE if part["type"] == "image_url" else part["text"] for part in content)


def qwen3_thinking(messages: Messages) -> str:
    """The template of Qwen3-VL-Thinking, in which a turn begins inside the thinking."""
    turns = [qwen.Turn(message["role"], flat(message), "", ()) for message in messages]
    return qwen.render(qwen.Conversation(turns))


def plain(messages: Messages) -> str:
    """The template of Qwen2.5-VL: every message as it is."""
    text = "".join(f"<|im_start|>{message['role']}\n{flat(message)}<|im_end|>\n" for message in messages)
    return f"{text}<|im_start|>assistant\n"


def begin(profile: Profile) -> Conversation:
    conversation = Conversation(profile)
    conversation.add("system", [profile.texts.system])
    conversation.add("user", [picture(), "What is it?"])
    return conversation


# What the engine called reasoning and content.
CODE = "<code>\n```python\nprint(1)\n```\n</code>"
SAID = {
    "code after thinking": ("I look.\n", f"\n\n{CODE}"),
    "code in thinking": (f"I look.\n{CODE}", ""),
    "a call": ("I look.\n", '\n\n<tool_call>\n{"arguments": {"code": "1"}}\n</tool_call>'),
    "malformed": ("Hm.\n", "\n\n<code>\n\n</code>"),
    "thinking of several paragraphs": ("One.\n\nTwo.\n", f"\n\nI run:\n{CODE}"),
}


def verbatim(profile: Profile, reasoning: str, content: str) -> str:
    """The text that the model produced for this reasoning and content."""
    opened = "" if profile.thinking_begun else profile.think_open
    return f"{opened}{reasoning}{profile.think_close if content else ''}{content}"


Step = Callable[[Conversation], None]
STEPS: dict[str, Step] = {
    "text": lambda conversation: conversation.add_result("1\n", [], []),
    "pictures": lambda conversation: conversation.add_result("", [picture("b"), picture("c")], ["one", "two"]),
    "a word": lambda conversation: conversation.add_word("You have already run this."),
    "a result and a word": lambda conversation: (
        conversation.add_result("1", [picture("b")], ["one"]),
        conversation.add_word("Answer now."),
    )[0],
}


@pytest.mark.parametrize("name", built_in_names())
@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_prompt_begins_with_the_one_before_and_what_was_said(name: str, said: tuple[str, str], step: Step) -> None:
    profile = load_profile(name)
    conversation = begin(profile)
    for _ in range(3):
        before = copy.deepcopy(conversation.messages)
        conversation.add_turn(*said)
        step(conversation)
        assert conversation.messages[: len(before)] == before
        rendered = plain if not profile.thinking_begun else qwen3_thinking
        assert rendered(conversation.messages).startswith(rendered(before) + verbatim(profile, *said))
        # Whatever the profile, the template of S1-VL's base model keeps all thinking and only adds.
        after = qwen3_thinking(conversation.messages)
        inside = verbatim(profile, *said).removeprefix(profile.think_open)
        assert after.startswith(qwen3_thinking(before) + inside)
        assert after.endswith("<|im_end|>\n<|im_start|>assistant\n<think>\n")


@pytest.mark.parametrize("name", built_in_names())
def test_an_engine_that_does_not_split(name: str) -> None:
    profile = load_profile(name)
    conversation = begin(profile)
    before = plain(conversation.messages)
    said = f"<think>\nI look.\n</think>\n\n{CODE}"
    conversation.add_turn("", said)
    assert plain(conversation.messages).startswith(before + said)


@pytest.mark.parametrize("name", ["thyme", "deepeyesv2", "pyvision"])
def test_a_turn_without_thinking_stays_as_it_is(name: str) -> None:
    conversation = begin(load_profile(name))
    conversation.add_turn("", CODE)
    assert conversation.messages[-1] == {"role": "assistant", "content": CODE}


@pytest.mark.parametrize(
    ("name", "role", "shown"),
    [
        ("s1vl", "tool", f"<sandbox_output>\n1\none\n{IMAGE}\n</sandbox_output>"),
        ("thyme", "user", f"<tool_response>\n<sandbox_output>1\none\n{IMAGE}</sandbox_output>\n</tool_response>"),
        (
            "deepeyesv2",
            "user",
            f"<tool_response>\nCode execution result:\n```\n1\n```\nImages:\none\n{IMAGE}\n</tool_response>",
        ),
        (
            "pyvision",
            "user",
            "<tool_response>\n<interpreter>Text Result:\n1\n"
            f"Image Result:\none\n{IMAGE}</interpreter>\n</tool_response>",
        ),
        ("tool_call", "tool", f"1\none\n{IMAGE}"),
    ],
)
def test_how_a_result_looks(name: str, role: str, shown: str) -> None:
    conversation = begin(load_profile(name))
    conversation.add_result("1", [picture("b")], ["one"])
    message = conversation.messages[-1]
    assert (message["role"], flat(message)) == (role, shown)


def test_output_with_braces_is_shown_as_it_is() -> None:
    conversation = begin(load_profile("deepeyesv2"))
    conversation.add_result("{'a': {0}} {text}", [], [])
    assert "```\n{'a': {0}} {text}\n```" in flat(conversation.messages[-1])


def test_only_dropping_changes_what_was_said_before() -> None:
    conversation = begin(load_profile("s1vl"))
    conversation.add_turn("a", "b")
    conversation.add_result("", [picture("b"), picture("c")], ["one", "two"])
    before = copy.deepcopy(conversation.messages)
    tokens = conversation.tokens
    assert conversation.drop_oldest()
    assert conversation.messages[:3] == before[:3]
    assert conversation.messages[3]["content"][2]["text"] == "[an earlier image is no longer shown: /p/b.png]"
    assert conversation.tokens == tokens - image_tokens(640, 480) + text_tokens(
        "[an earlier image is no longer shown: /p/b.png]"
    )
    assert conversation.drop_oldest()
    assert not conversation.drop_oldest()
    assert conversation.image_count == 1


PIECE = st.text(max_size=20) | st.sampled_from(["<think>", "</think>", "\n", "<code>", "<tool_response>"])
TURN = st.tuples(st.lists(PIECE, max_size=4).map("".join), st.lists(PIECE, max_size=4).map("".join))


@given(st.sampled_from(built_in_names()), st.lists(TURN, max_size=4), st.data())
def test_messages_are_append_only(name: str, turns: list[tuple[str, str]], data: st.DataObject) -> None:
    conversation = begin(load_profile(name))
    for reasoning, content in turns:
        before, tokens, images = copy.deepcopy(conversation.messages), conversation.tokens, conversation.image_count
        conversation.add_turn(reasoning, content)
        step = data.draw(st.sampled_from(sorted(STEPS)))
        STEPS[step](conversation)
        assert conversation.messages[: len(before)] == before
        assert conversation.tokens > tokens
        assert conversation.image_count >= images
