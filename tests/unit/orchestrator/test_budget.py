"""Image tokens as Qwen3-VL counts them, and what a turn may produce."""

# ruff: noqa: RUF001  (texts of many scripts)

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s1vl_orchestrator.budget import (
    IMAGE_MARKS,
    MAX_PIXELS,
    MIN_PIXELS,
    AspectTooExtremeError,
    ContextBudget,
    copy_size,
    image_tokens,
    smart_resize,
    text_tokens,
    thinking_seconds,
)
from s1vl_orchestrator.protocol.profile import built_in_names, load_profile


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


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        # By hand: sides to the nearest multiple of 32, ties to the even one; at least 65,536 px, at most 16,777,216.
        ((1024, 768), (1024, 768)),
        ((1000, 700), (992, 704)),
        ((1008, 1008), (1024, 1024)),  # 31.5 patches: 32
        ((1040, 1040), (1024, 1024)),  # 32.5 patches: 32
        ((256, 256), (256, 256)),
        ((255, 255), (256, 256)),
        ((200, 200), (256, 256)),  # 192x192 is too little: x 256/200
        ((100, 640), (128, 672)),  # 96x640 is too little: x 1.012, then up
        ((64, 64), (256, 256)),
        ((1, 200), (32, 3648)),  # x 18.1
        ((15, 3000), (32, 3648)),  # Less than half a patch counts as nothing: x 1.207
        ((17, 3400), (32, 3392)),
        ((4096, 4096), (4096, 4096)),
        ((4112, 4112), (4096, 4096)),  # 128.5 patches: 128
        ((7680, 4320), (5440, 3072)),  # 33,177,600 px: / 1.4063
        ((40_000, 200), (40_000, 192)),
        ((100_000, 500), (57_920, 288)),  # 50,000,000 px: / 1.7263
    ],
)
def test_sizes_by_hand(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert smart_resize(*size) == resized
    assert smart_resize(*size[::-1]) == resized[::-1]
    assert image_tokens(*size) == resized[0] * resized[1] // 1024 + IMAGE_MARKS


@pytest.mark.parametrize("size", [(1, 201), (300, 1), (40_200, 200)])
def test_extreme_pictures_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(AspectTooExtremeError, match=f"{size[0]}x{size[1]} px is over 200"):
        smart_resize(*size)


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_a_picture_has_64_to_16384_tokens(width: int, height: int) -> None:
    if max(width, height) > 200 * min(width, height):
        return
    resized = smart_resize(width, height)
    assert resized[0] % 32 == resized[1] % 32 == 0
    assert MIN_PIXELS <= resized[0] * resized[1] <= MAX_PIXELS
    assert image_tokens(width, height) == resized[0] * resized[1] // 1024 + IMAGE_MARKS


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.integers(4 * MIN_PIXELS, MAX_PIXELS))
@example(193, 38_417, 2_621_440)  # Rounded down it would be 96x22,880 px: over 200.
def test_a_copy_keeps_its_size_and_its_budget(width: int, height: int, pixels: int) -> None:
    if max(width, height) > 200 * min(width, height):
        return
    copy = copy_size(width, height, pixels)
    if copy[0] * copy[1] >= MIN_PIXELS:
        assert smart_resize(*copy) == copy
    if width * height > pixels:
        assert copy[0] * copy[1] <= pixels


# A text, and its tokens as counted with the 151,643 entries of Qwen's published vocabulary and its way of splitting.
COUNTED = {
    "code": ("for index, (x, y) in enumerate(corners):\n    crop = image_1.crop((x, y, x + 256, y + 256))\n", 39),
    "prose": ("I cut out the next square, print the colour of its middle, and keep the picture.", 19),
    "answer": ("<answer>(2R,3S)-2-amino-3-hydroxybutanoic acid, at 3.4 ppm (J = 7.2 Hz).</answer>", 39),
    "path": ("/mnt/data/images/.s1vl/jobs/3f9ac01be77d4c12aa90f0c1/output/square_8.png\n", 39),
    "traceback": ('  File "<cell>", line 3, in <module>\n    a[0]\nIndexError: index 12 is out of bounds\n', 30),
    "array": ("[[255   0  12]\n [ 31  22   5]\n [  0   0   0]]\n", 35),
    "floats": ("[-1.23456789e-01  4.56000000e+00  7.89012345e+02]\n", 48),
    "JSON": ('{"a": 12, "b": [1, 2, 3], "c": {"d": "x"}}]', 29),
    "CSV": ("1,electron,9.109e-31,-1\n2,proton,1.672e-27,1\n", 33),
    "LaTeX": (r"\frac{\partial^2 u}{\partial x^2} + \sum_{i=1}^{n} \alpha_i = \int_0^\infty e^{-x^2} dx", 43),
    "formula": ("∂²u/∂x² + ∑ᵢ αᵢβᵢ = ∫₀^∞ e^{−x²} dx, λ ∈ ℝⁿ, ±0.5 µm, 37 °C", 49),
    "SMILES": ("CC(=O)Oc1ccccc1C(=O)O CN1C=NC2=C1C(=O)N(C(=O)N2C)C", 41),
    "peptide": ("MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQDNLSGAEKAVQVKVKALPDAQFEVV", 42),
    "DNA": ("ACGTTGCAAGCTTACGATCGGATATTACGCG", 18),
    "hex": ("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", 59),
    "lines": ("a\n" * 50, 100),
    "Chinese": ("图中显示了不同颜色的方块，我需要逐一检查它们的中心颜色。", 19),
    "Japanese": ("この図には色の異なる四角形が並んでいる。", 14),
    "Korean": ("이 그림에는 색이 다른 사각형이 있다.", 14),
    "Russian": ("На рисунке показаны квадраты разных цветов, и я сравниваю их с легендой.", 29),
    "Arabic": ("يظهر الشكل مربعات بألوان مختلفة وأقارنها بوسيلة الإيضاح.", 22),
    "Hindi": ("चित्र में अलग-अलग रंगों के वर्ग दिखाए गए हैं।", 42),
    "Greek": ("Το σχήμα δείχνει τετράγωνα διαφορετικών χρωμάτων.", 45),
    "German": ("Die Abbildung zeigt Quadrate verschiedener Farben; ich vergleiche sie mit der Legende.", 22),
    "emoji": ("😀🧪🔬🧬⚗️", 7),
}


@pytest.mark.parametrize(("text", "counted"), COUNTED.values(), ids=COUNTED)
def test_texts_are_not_underestimated(text: str, counted: int) -> None:
    assert counted < text_tokens(text) <= 2.2 * counted


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


@pytest.mark.parametrize(
    ("prompt", "turn", "answer"),
    [
        # Context 32,768, margin 256, answer 4,096, turn 8,192.
        (0, 8192, 8192),
        (20_224, 8192, 8192),  # 32,768 - 20,224 - 256 - 4,096 is 8,192
        (20_225, 8191, 8192),
        (27_904, 512, 4608),  # The least that an ordinary turn is worth
        (27_905, 0, 4607),
        (28_416, 0, 4096),
        (32_448, 0, 64),
        (32_449, 0, 0),
        (40_000, 0, 0),
    ],
)
def test_max_tokens_by_hand(prompt: int, turn: int, answer: int) -> None:
    assert (budget().turn_tokens(prompt), budget().answer_tokens(prompt)) == (turn, answer)


CONTEXTS = st.integers(2048, 262_144)


@given(CONTEXTS, st.integers(0, 300_000), st.sampled_from(built_in_names()))
def test_never_over_the_context_and_the_answer_always_fits(context: int, prompt: int, name: str) -> None:
    limits = load_profile(name).limits
    fitted = ContextBudget.fit(
        context=context,
        images=15,
        turn=limits.turn_tokens,
        answer=limits.answer_tokens,
        input_pixels=limits.input_pixels,
        new_pixels=limits.new_pixels,
    )
    turn, answer = fitted.turn_tokens(prompt), fitted.answer_tokens(prompt)
    assert 0 <= turn <= limits.turn_tokens
    assert (prompt + max(turn, answer) + fitted.margin <= context) or turn == answer == 0
    if turn:
        # After a turn that used all it had, the whole answer still fits.
        assert fitted.answer_tokens(prompt + turn) >= min(fitted.answer, fitted.turn)
    # Monotone: a longer prompt leaves less.
    assert fitted.turn_tokens(prompt + 1) <= turn
    assert fitted.answer_tokens(prompt + 1) <= answer


@given(CONTEXTS, st.integers(1, 64))
def test_inputs_share_half_of_the_context(context: int, count: int) -> None:
    pixels = budget(context).pixels_per_input(count)
    assert pixels >= MIN_PIXELS
    assert budget(context).pixels_per_input(count + 1) <= pixels
    assert pixels == MIN_PIXELS or count * pixels // 1024 <= context // 2


@pytest.mark.parametrize(("deadline", "thinking"), [(270, 225), (150, 105), (100, 70), (10, 7), (1, 0.7)])
def test_time_is_kept_back_for_the_answer(deadline: float, thinking: float) -> None:
    assert thinking_seconds(deadline) == pytest.approx(thinking)


@given(st.floats(0.001, 3600))
def test_more_time_is_more_thinking_and_no_less_answering(deadline: float) -> None:
    assert 0 < thinking_seconds(deadline) < deadline
    assert thinking_seconds(deadline + 1) > thinking_seconds(deadline)
    assert deadline - thinking_seconds(deadline) <= deadline + 1 - thinking_seconds(deadline + 1) + 1e-9
