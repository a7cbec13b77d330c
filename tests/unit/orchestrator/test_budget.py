"""Image tokens as Qwen3-VL counts them, and what a turn may produce."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_orchestrator.budget import AspectTooExtremeError, ContextBudget, image_tokens, smart_resize, text_tokens
from s1vl_orchestrator.conversation import Conversation, ShownImage
from s1vl_orchestrator.protocol.profile import load_profile


@pytest.mark.parametrize(
    ("size", "default", "cap_1280", "cap_2560", "cap_4096"),
    [
        ((512, 512), 256, 256, 256, 256),
        ((1024, 1024), 1024, 1024, 1024, 1024),
        ((1920, 1080), 2040, 1222, 2040, 2040),
        ((3840, 2160), 8160, 1222, 2479, 4080),
        ((4032, 3024), 11844, 1230, 2494, 4015),
        ((7680, 4320), 16320, 1222, 2479, 4080),
        ((20, 20), 64, 64, 64, 64),
        ((1, 1), 64, 64, 64, 64),
    ],
)
def test_tokens_of_pictures(size: tuple[int, int], default: int, cap_1280: int, cap_2560: int, cap_4096: int) -> None:
    assert image_tokens(*size) == default + 2
    for cap, tokens in ((1280, cap_1280), (2560, cap_2560), (4096, cap_4096)):
        width, height = smart_resize(*size, max_pixels=cap * 1024)
        assert width * height // 1024 == tokens


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([65_536, 1_310_720, 2_621_440]))
def test_a_resized_picture_stays_as_it_is(width: int, height: int, pixels: int) -> None:
    try:
        once = smart_resize(width, height, max_pixels=pixels)
    except AspectTooExtremeError:
        assert max(width, height) > 200 * min(width, height)
        return
    assert once[0] % 32 == once[1] % 32 == 0


@pytest.mark.parametrize(("text", "least"), [("hello world " * 100, 200), ("红色" * 100, 133), ("12345" * 10, 50)])
def test_texts_are_never_underestimated(text: str, least: int) -> None:
    assert text_tokens(text) >= least


def budget(context: int = 32_768) -> ContextBudget:
    return ContextBudget.fit(
        context=context, images=15, turn=8192, answer=4096, input_pixels=2_621_440, new_pixels=1_310_720
    )


def test_max_tokens_always_leaves_room_for_the_answer() -> None:
    full = budget()
    assert full.turn_tokens(1000) == 8192
    assert full.turn_tokens(24_000) == 32_768 - 24_000 - 256 - 4096
    assert full.turn_tokens(28_500) == 0
    assert full.answer_tokens(28_500) == 32_768 - 28_500 - 256
    assert full.answer_tokens(32_700) == 0


@pytest.mark.parametrize("context", [2048, 8192, 32_768, 262_144])
def test_any_context_has_room_for_a_first_turn(context: int) -> None:
    assert budget(context).turn_tokens(context // 8) > 0


@pytest.mark.parametrize(("count", "pixels"), [(1, 2_621_440), (6, 2_621_440), (15, 16384 // 15 * 1024)])
def test_many_inputs_share_half_of_the_context(count: int, pixels: int) -> None:
    assert budget().pixels_per_input(count) == pixels


def test_a_conversation_counts_and_makes_room() -> None:
    profile = load_profile("s1vl")
    conversation = Conversation(profile)
    shown = [ShownImage({"type": "image_url"}, f"/p/{n}.png", 1024, 1024) for n in range(3)]
    conversation.add("user", [shown[0], "What?"])
    assert conversation.tokens > 1026
    conversation.add_turn("a", "b")
    conversation.counted(5000, 100)
    assert 5100 <= conversation.tokens < 5200
    conversation.add_result("done", shown[1:], ["one", "two"])
    before = conversation.tokens
    assert conversation.image_count == 3
    assert conversation.drop_oldest()
    assert conversation.tokens < before - 900
    assert "/p/1.png" in conversation.messages[-1]["content"][2]["text"]
    assert conversation.drop_oldest()
    assert not conversation.drop_oldest()  # Inputs are never dropped.
    assert conversation.image_count == 1
