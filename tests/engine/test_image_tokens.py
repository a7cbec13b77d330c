"""The arithmetic of image tokens: the engine's count, the simulator's, and the orchestrator's are one."""

from __future__ import annotations

import pytest

from hack.engine_sim import tokens
from s1vl_orchestrator import budget
from tests.engine.conftest import TEXT, error_of

SIZES = [
    (1, 1), (2, 2), (10, 300), (300, 10), (15, 15), (16, 16), (17, 17), (48, 80), (64, 64), (100, 100), (1, 200),
    (200, 1), (5, 900), (900, 5), (255, 256), (256, 256), (257, 256), (240, 272), (272, 240), (300, 200), (333, 333),
    (1000, 10), (1024, 768), (1023, 767), (1039, 783), (1040, 784), (1920, 1080), (2246, 1582), (3840, 2160),
    (4032, 3024), (4096, 4096), (4097, 4096), (4111, 4111), (5000, 5000), (4000, 20), (15, 3000), (3000, 15),
    (6400, 32), (20, 4000), (7680, 4320), (16000, 100),
]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), SIZES, ids=str)
def test_an_image_takes_as_many_tokens_as_the_orchestrator_counts(engine, image, width: int, height: int) -> None:
    """`/tokenize` counts like `usage`, see test_prompts.py, and does not have to generate."""
    text = engine.tokenize(TEXT)["count"]
    taken = engine.tokenize(TEXT, image(width, height))["count"] - text
    assert taken == budget.image_tokens(width, height) == tokens.image_tokens(width, height) + budget.IMAGE_MARKS


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 64), (1024, 768), (1920, 1080), (3840, 2160)])
def test_the_same_is_charged_in_usage(engine, image, width: int, height: int) -> None:
    text = engine.chat(TEXT, max_tokens=1).json()["usage"]["prompt_tokens"]
    taken = engine.chat(TEXT, image(width, height), max_tokens=1).json()["usage"]["prompt_tokens"] - text
    assert taken == budget.image_tokens(width, height)


@pytest.mark.parametrize(("width", "height"), [(1, 201), (201, 1), (2, 500), (6432, 32)])
def test_a_long_thin_image_is_refused(engine, image, width: int, height: int) -> None:
    with pytest.raises(budget.AspectTooExtremeError):
        budget.image_tokens(width, height)
    error = error_of(engine.chat(TEXT, image(width, height)))
    assert error["message"].startswith("Failed to apply Qwen3VLProcessor on data=")
    assert error["type"] == "BadRequestError"


@pytest.mark.parametrize("most", [65_536, 262_144, 1_310_720])
@pytest.mark.parametrize(("width", "height"), [(3840, 2160), (4000, 20), (333, 4096), (16000, 100)])
def test_a_smaller_copy_is_taken_as_it_is(engine, image, width: int, height: int, most: int) -> None:
    copy = budget.copy_size(width, height, most)
    taken = engine.tokenize(TEXT, image(*copy))["count"] - engine.tokenize(TEXT)["count"]
    assert taken == budget.image_tokens(*copy)
    assert (taken - budget.IMAGE_MARKS) * 1024 <= max(most, 65_536 * 2)
