"""Flags, tokens, stop strings, the reasoning split, prompts, media and blocks."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from hack.engine_sim.blocks import PrefixCache
from hack.engine_sim.chat import plan_output
from hack.engine_sim.errors import ApiError
from hack.engine_sim.flags import ConfigError, ServeOptions, human_int, parse_options
from hack.engine_sim.media import BYTES_PER_TOKEN, Item, MediaCache, fetch
from hack.engine_sim.policy.situation import read_situation
from hack.engine_sim.prompt import Conversation, Turn, read_messages, render, tokenize
from hack.engine_sim.protocol import forced_text
from hack.engine_sim.reasoning import StopScanner, StreamSplitter, split_reasoning
from hack.engine_sim.tokens import AspectError, image_tokens, smart_resize, split_text
from hack.engine_sim.versions import behaviour_of, parse_release
from hack.engine_sim.vision import ImageFacts, colour_name, place_name

NEWEST = behaviour_of("0.32.0")
FACTS = ImageFacts(64, 64, (0, 0, 0), "black", None, 0.0, None)


def options(*arguments: str, version: str = "0.32.0") -> ServeOptions:
    return parse_options(["serve", "model", *arguments], behaviour_of(version))


CARD = (
    "--tensor-parallel-size", "4", "--max-model-len", "32768", "--reasoning-parser", "deepseek_r1",
    "--enable-prefix-caching", "--gpu-memory-utilization", "0.95", "--port", "9200",
)  # fmt: skip


@pytest.mark.parametrize("version", ["0.11.0", "0.11.2", "0.32.0"])
@pytest.mark.parametrize(
    "limit",
    [
        ("--limit-mm-per-prompt", '{"image":15,"video":0}'),
        ('--limit-mm-per-prompt={"image": {"count": 15}, "video": 0}',),
        ("--limit-mm-per-prompt.image", "15", "--limit_mm_per_prompt.video=0"),
    ],
)
def test_the_cards_flags_are_taken(version: str, limit: tuple[str, ...]) -> None:
    read = options(*CARD, *limit, version=version)
    assert (read.port, read.max_model_len, read.image_limit, read.video_limit) == (9200, 32768, 15, 0)
    assert read.served_names == ("model",)


def test_a_modality_without_a_limit_has_vllms() -> None:
    read = options("--limit-mm-per-prompt", '{"image":15}')
    assert (read.image_limit, read.video_limit) == (15, 999)


@pytest.mark.parametrize(
    ("flag", "since", "before"),
    [
        ("--shutdown-timeout=5", "0.18.0", "0.17.1"),
        ("--max-num-queued-reqs=5", "0.30.0", "0.26.0"),
        ("--disable-access-log-for-endpoints=/health", "0.16.0", "0.15.1"),
        ("--mm-processor-cache-type=shm", "0.11.0", "0.10.2"),
    ],
)
def test_flags_come_with_their_version(flag: str, since: str, before: str) -> None:
    options(flag, version=since)
    with pytest.raises(SystemExit) as refused:
        options(flag, version=before)
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tensor-parallel-size", "3"], r"heads \(64\) must be divisible by tensor parallel size \(3\)"),
        (["--tensor-parallel-size", "0"], "greater than or equal to 1"),
        (["--gpu-memory-utilization", "0"], "greater than 0"),
        (["--max-model-len", "300000"], "greater than the derived max_model_len"),
        (["--limit-mm-per-prompt", '{"image": "many"}'], "valid integer"),
        (["--limit-mm-per-prompt", "15"], "valid dictionary"),
        (["--reasoning-parser", "step3"], "splits reasoning only for"),
        (["--limit-mm-per-prompt.image"], "needs a value"),
    ],
)
def test_bad_values_are_refused_while_starting(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        options(*arguments)


@pytest.mark.parametrize(("text", "number"), [("32768", 32768), ("32k", 32000), ("32K", 32768), ("1.5K", 1536)])
def test_sizes_are_read(text: str, number: int) -> None:
    assert human_int(text) == number


@pytest.mark.parametrize("text", ["", "many", "1.5", "-1"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        human_int(text)


def test_versions_are_read() -> None:
    assert parse_release("v0.32.0+cpu") == (0, 32, 0)
    with pytest.raises(ValueError, match="not a version"):
        parse_release("latest")


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (64, 64, 64), (1, 1, 64), (20, 20, 64), (512, 512, 256), (1024, 768, 768), (1024, 1024, 1024),
        (1920, 1080, 2040), (3840, 2160, 8160), (4032, 3024, 11844), (7680, 4320, 16320), (20000, 20000, 16384),
    ],
)  # fmt: skip
def test_image_tokens(width: int, height: int, tokens: int) -> None:
    assert image_tokens(width, height) == tokens


def test_too_long_an_image_is_refused() -> None:
    smart_resize(1, 200)
    with pytest.raises(AspectError):
        smart_resize(1, 201)


@pytest.mark.parametrize(
    "text", ["", "Hello world, 3.14!\n\tx = [1]  # \u00b5m \u2026</think>\n\n<code>", "    indented\r\n"]
)
def test_tokens_join_to_their_text(text: str) -> None:
    assert "".join(token.text for token in split_text(text)) == text


def test_appending_keeps_the_earlier_tokens() -> None:
    first = split_text("<think>\nlook</think>\n\n<code>\nx\n</code>")
    assert split_text("<think>\nlook</think>\n\n<code>\nx\n</code><|im_end|>\nmore")[: len(first)] == first


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("a</think>b", "a", "b"), ("a</think>", "a", None), ("a", "a", None), ("", "", None),
        ("<think>a</think>b</think>c", "a", "b</think>c"), ("</think>b", "", "b"),
    ],
)  # fmt: skip
def test_reasoning_is_split_off(text: str, reasoning: str, content: str | None) -> None:
    assert split_reasoning(text) == (reasoning, content)


@pytest.mark.parametrize(
    ("text", "stops", "include", "limit", "kept", "finish", "reason"),
    [
        ("look</code>more", ["</code>"], True, 99, "look</code>", "stop", "</code>"),
        ("look</code>more", ["</code>"], False, 99, "look", "stop", "</code>"),
        ("a</code>b</think>c", ["</think>", "</code>"], True, 99, "a</code>", "stop", "</code>"),
        ("look", ["</code>"], True, 99, "look", "stop", None),
        ("one two three", [], False, 2, "one two", "length", None),
        ("one two", [], False, 2, "one two", "length", None),
        ("one two", [], False, 3, "one two", "stop", None),
    ],
)
def test_output_ends_at_a_stop_string_or_the_limit(*, text, stops, include, limit, kept, finish, reason) -> None:
    plan = plan_output(text, stops, include=include, limit=limit)
    assert (plan.text, plan.finish_reason, plan.stop_reason) == (kept, finish, reason)


@pytest.mark.parametrize(
    ("include", "reasoning", "content"), [(True, "hello world", "\n<code>x"), (False, "hello", "think>\n<code>x")]
)
def test_a_stream_loses_text_as_vllms_does(include: bool, reasoning: str, content: str) -> None:
    scanner, splitter = StopScanner(["</code>"], include=include), StreamSplitter(active=True)
    out = ["", ""]
    tokens = split_text("hello world</think>\n<code>x")
    for left, token in zip(range(len(tokens) - 1, -1, -1), tokens, strict=True):
        text = scanner.feed(token.text) + ("" if left else scanner.flush())
        for at, part in enumerate(splitter.split(token.text, text)):
            out[at] += part
    assert out == [reasoning, content]


def turns(*pairs: tuple[str, str]) -> Conversation:
    return Conversation([Turn(role, text, "", ()) for role, text in pairs])


THOUGHT = ("assistant", "<think>\nplan\n</think>\n\n<code>x</code>")


def test_thinking_is_kept_before_a_tool_result() -> None:
    text = render(turns(("user", "q"), THOUGHT, ("tool", "r")))
    assert "<|im_start|>assistant\n<think>\nplan\n</think>\n\n<code>x</code><|im_end|>\n" in text
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\nr\n</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


@pytest.mark.parametrize(
    ("text", "kept"), [("<tool_response>r</tool_response>", True), ("<tool_response>r</tool_response>\n", False)]
)
def test_thinking_is_dropped_before_another_question(text: str, kept: bool) -> None:
    assert ("plan" in render(turns(("user", "q"), THOUGHT, ("user", text)))) is kept


def test_images_are_expanded() -> None:
    image = Item("k", FACTS, 64)
    conversation = Conversation([Turn("user", "<|vision_start|><|image_pad|><|vision_end|>", "", (image,))])
    tokens, with_one_each = tokenize(conversation)
    assert len(tokens) - with_one_each == 63
    assert len({token for token in tokens if token < 0}) == 1


@pytest.mark.parametrize("content", ["text", [{"type": "text", "text": "text"}], ["text"]])
def test_content_may_be_text_or_parts(content: object) -> None:
    read = read_messages([{"role": "user", "content": content}], options(), NEWEST, MediaCache(0))
    assert read.turns[0].text == "text"


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(ApiError, match="Unknown part type: sound"):
        read_messages([{"role": "user", "content": [{"type": "sound"}]}], options(), NEWEST, MediaCache(0))


@pytest.mark.parametrize(
    ("version", "name", "kept"),
    [
        ("0.32.0", "reasoning", True), ("0.32.0", "reasoning_content", True), ("0.17.0", "reasoning_content", False),
        ("0.11.2", "reasoning_content", True),
    ],
)  # fmt: skip
def test_history_reasoning_by_its_names(version: str, name: str, kept: bool) -> None:
    message = {"role": "assistant", "content": "c", name: "r"}
    read = read_messages([message], options(), behaviour_of(version), MediaCache(0))
    assert bool(read.turns[0].reasoning) is kept


def test_the_media_cache_forgets_the_longest_unused() -> None:
    cache = MediaCache(2 * BYTES_PER_TOKEN)
    for key in ("a", "b"):
        cache.put(Item(key, FACTS, 1))
    assert cache.get("a")
    cache.put(Item("c", FACTS, 1))
    assert [key for key in "abc" if cache.get(key)] == ["a", "c"]
    assert (cache.queries, cache.hits) == (4, 3)


def test_urls_are_confined(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a b.png").write_bytes(b"x")
    assert fetch(f"file://{root}/in/a%20b.png", root) == b"x"
    assert fetch("data:image/png;base64," + base64.b64encode(b"x").decode(), None) == b"x"
    for url in (f"file://{root}", f"file://{root}/%2e%2e/x", f"file://{root}x/y"):
        with pytest.raises(ApiError, match="must be a subpath"):
            fetch(url, root)
    for url, words in (
        ("file:///x", "without `--allowed-local-media-path`"),
        ("data:image/png,x", "Only base64"),
        ("data:image/png;base64,*", "Failed to load image"),
        ("https://example.org/x.png", "does not fetch"),
    ):
        with pytest.raises(ApiError, match=words):
            fetch(url, None)


def test_prefixes_are_matched_in_blocks_by_salt() -> None:
    cache = PrefixCache()
    tokens = list(range(50))
    cache.insert(tokens, "a")
    assert cache.match(tokens, "a") == 48
    assert cache.match(tokens[:48], "a") == 32
    assert cache.match([*tokens[:20], 0, *tokens[20:]], "a") == 16
    assert cache.match(tokens, "b") == 0


def test_the_prefix_cache_is_bounded() -> None:
    cache = PrefixCache(capacity_blocks=2)
    for start in (0, 100, 200):
        cache.insert(range(start, start + 16), None)
    assert [cache.match([*range(start, start + 16), 0], None) for start in (0, 100, 200)] == [0, 16, 16]


@pytest.mark.parametrize(
    ("structured", "text"),
    [
        (None, None), ({"choice": ["a", "b"]}, "a"), ({"regex": r"a\(b\)\n"}, None), ({"regex": r"a\(b\)"}, "a(b)"),
    ],
)  # fmt: skip
def test_constraints_with_one_possible_text(structured, text: str | None) -> None:
    if structured and text is None:
        with pytest.raises(ApiError):
            forced_text(structured)
    else:
        assert forced_text(structured) == text


@pytest.mark.parametrize("structured", [{"choice": ["a"], "regex": "a"}, {"regex": "("}, {"json": {}}, {"choice": []}])
def test_other_constraints_are_refused(structured) -> None:
    with pytest.raises(ApiError):
        forced_text(structured)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((214, 32, 38), "red"), ((30, 168, 62), "green"), ((34, 74, 214), "blue"), ((226, 204, 28), "yellow"),
        ((208, 36, 150), "magenta"), ((24, 184, 204), "cyan"), ((120, 120, 120), "grey"), ((0, 0, 0), "black"),
        ((250, 250, 250), "white"), ((240, 140, 20), "orange"), ((110, 70, 30), "brown"), ((120, 40, 200), "purple"),
    ],
)  # fmt: skip
def test_colours_have_names(rgb: tuple[int, int, int], name: str) -> None:
    assert colour_name(*rgb) == name


@pytest.mark.parametrize(
    ("x", "y", "name"), [(0.1, 0.1, "upper left"), (0.5, 0.5, "centre"), (0.9, 0.5, "right"), (0.5, 0.9, "lower")]
)
def test_places_have_names(x: float, y: float, name: str) -> None:
    assert place_name(x, y) == name


@pytest.mark.parametrize(
    ("later", "question", "turn", "forced"),
    [
        ([("tool", "r")], "q", 1, False),
        ([("tool", "No more code can be run. Give your final answer now.")], "q", 1, True),
        ([("user", "You must answer now.")], "q", 1, True),
        ([("user", "<tool_response>r</tool_response>")], "q", 1, False),
        ([("user", "another one")], "another one", 0, False),
    ],
)
def test_situations(later: list[tuple[str, str]], question: str, turn: int, forced: bool) -> None:
    situation = read_situation(turns(("system", "use <code>"), ("user", "q"), THOUGHT, *later))
    assert (situation.question, situation.turn, situation.forced) == (question, turn, forced)
    assert situation.code_allowed
