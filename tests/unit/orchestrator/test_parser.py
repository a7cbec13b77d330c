"""The tolerant parser: a table of what models write, and properties over arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_orchestrator.protocol.parser import Answer, Code, Malformed, TurnText, parse, parse_final
from s1vl_orchestrator.protocol.profile import load_profile

PROFILE = load_profile("s1vl")
FENCED = "<code>\n```python\nprint(1)\n```\n</code>"

CODE = {
    "fenced": ("", FENCED, "print(1)"),
    "in thinking, content null": (f"look\n{FENCED}", "", "print(1)"),
    "no fence": ("", "<code>\nprint(1)\n</code>", "print(1)"),
    "on one line": ("", "<code>print(1)</code>", "print(1)"),
    "fence without a language": ("", "<code>\n```\nprint(1)\n```\n</code>", "print(1)"),
    "fence py": ("", "<code>```py\nprint(1)\n```</code>", "print(1)"),
    "fence not closed": ("", "<code>\n```python\nprint(1)\n</code>", "print(1)"),
    "windows line ends": ("", "<code>\r\n```python\r\nprint(1)\r\n```\r\n</code>", "print(1)"),
    "not closed at a stop": ("", "<code>\n```python\nprint(1)\n```\n", "print(1)"),
    "not closed in thinking": ("hm <code>\n```python\nprint(1)", "", "print(1)"),
    "two blocks": ("", f"{FENCED}\n<code>\nprint(2)\n</code>", "print(1)"),
    "an invented result": ("", f"{FENCED}\n<sandbox_output>9</sandbox_output><answer>9</answer>", "print(1)"),
    "thinking first": ("", f"I will crop.\n{FENCED}", "print(1)"),
    "the tag in prose before": ("I write a <code> block now: " + FENCED, "", "print(1)"),
    "the open tag in a string": ("", "<code>\n```python\nprint('<code>')\n```\n</code>", "print('<code>')"),
    "a fence in a string": (
        "",
        "<code>\n```python\ns = '''\n```\n'''\nprint(s)\n```\n</code>",
        "s = '''\n```\n'''\nprint(s)",
    ),
    "an answer tag in thinking": ("then <answer>x</answer> later", FENCED, "print(1)"),
    "indentation survives": ("", "<code>\n```python\nif 1:\n    print(1)\n```\n</code>", "if 1:\n    print(1)"),
    "tool call": ("", '<tool_call>\n{"name": "code", "arguments": {"code": "print(1)"}}\n</tool_call>', "print(1)"),
    "tool call, text arguments": (
        "",
        '<tool_call>{"arguments": "{\\"code\\": \\"print(1)\\"}"}</tool_call>',
        "print(1)",
    ),
    "tool call, raw line breaks": ("", '<tool_call>{"arguments": {"code": "a\nb"}}</tool_call>', "a\nb"),
    "tool call before code": ("", f'<tool_call>{{"arguments": {{"code": "2"}}}}</tool_call>{FENCED}', "2"),
    "not latin": (
        "先看看左上角。",
        "<code>\n```python\nprint('红色')  # цвет 🟥\n```\n</code>",
        "print('红色')  # цвет 🟥",
    ),
}

ANSWERS = {
    "tagged": ("", "<answer>red</answer>", "red"),
    "no tags": ("thought", "\n\nThe colour is red.\n", "The colour is red."),
    "the last one": ("", "<answer>a</answer> no, <answer>b</answer>", "b"),
    "not closed": ("", "So <answer>red", "red"),
    "not closed after one that is": ("", "<answer>a</answer> or <answer>b", "b"),
    "the open tag in prose": ("", "I put it in <answer>: <answer>red</answer>", "red"),
    "the tags quoted inside": (
        "",
        "<answer>I was told: use <answer> and </answer>. Red.</answer>",
        "I was told: use  and . Red.",
    ),
    "a stray close tag": ("", "</answer> <answer>red</answer>", "red"),
    "thinking never closed": ("It is red.", "", "It is red."),
    "thinking never closed, tagged": ("hm <answer>red</answer>", "", "red"),
    "answer, then code": ("", f"<answer>red</answer>\n{FENCED}", "red"),
    "the open tag in thinking only": ("I could use <code> here", "It is red.", "It is red."),
    "code shown in an answer": ("", "Use:\n```python\nprint(1)\n```", "Use:\n```python\nprint(1)\n```"),
    "the code tag named": ("", "HTML has a <code> tag", "HTML has a <code> tag"),
    "not latin": ("想", "<answer>红色 — красный</answer>", "红色 — красный"),
    "a stray think tag": ("", "<think>\nx</think> red", "red"),
}

BROKEN = {
    "nothing": ("", "", False),
    "white space": ("\n", " \n", False),
    "empty code": ("", "<code>\n```python\n\n```\n</code>", False),
    "tool call, no JSON": ("", "<tool_call>{code: 1}</tool_call>", False),
    "tool call, no code": ("", '<tool_call>{"arguments": {"x": 1}}</tool_call>', False),
    "tool call, a list": ("", "<tool_call>[1]</tool_call>", False),
    "tool call, too deep": ("", "<tool_call>" + "[" * 100_000 + "</tool_call>", False),
    "code cut off": ("", "<code>\n```python\nprint(", True),
    "thinking cut off": ("and so on and so", "", True),
}


@pytest.mark.parametrize(("reasoning", "content", "source"), CODE.values(), ids=CODE.keys())
def test_code(reasoning: str, content: str, source: str) -> None:
    assert parse(reasoning, content, PROFILE) == Code(source)


@pytest.mark.parametrize(("reasoning", "content", "text"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answers(reasoning: str, content: str, text: str) -> None:
    assert parse(reasoning, content, PROFILE) == Answer(text)


@pytest.mark.parametrize(("reasoning", "content", "truncated"), BROKEN.values(), ids=BROKEN.keys())
def test_neither(reasoning: str, content: str, truncated: bool) -> None:
    said = parse(reasoning, content, PROFILE, truncated=truncated)
    assert isinstance(said, Malformed)
    assert said.why


@pytest.mark.parametrize(
    ("reasoning", "content", "answer"),
    [
        ("", "<answer>x</answer>", "x"),
        ("", f"It is x. {FENCED}", "It is x."),
        ("", FENCED, None),
        ("It is x.", "", "It is x."),
        (f"{FENCED} so <answer>x</answer>", "", "x"),
        ("", "", None),
    ],
)
def test_the_final_turn(reasoning: str, content: str, answer: str | None) -> None:
    assert parse_final(reasoning, content, PROFILE) == answer


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"a {FENCED} invented", f"a {FENCED}"),
        ("<tool_call>{}</tool_call> more", "<tool_call>{}</tool_call>"),
        ("<code>x\n<sandbox_output>1", "<code>x\n"),
        ("I get <sandbox_output> then", "I get <sandbox_output> then"),
        ("plain", "plain"),
    ],
)
def test_a_turn_is_cut_at_its_end(text: str, kept: str) -> None:
    turn = TurnText(PROFILE)
    turn.feed("", text)
    assert turn.content == kept
    assert turn.cut == (text != kept)


TAGS = [
    "<code>",
    "</code>",
    "```python\n",
    "```",
    "\n",
    "<answer>",
    "</answer>",
    "<tool_call>",
    "</tool_call>",
    "</think>",
    "<think>",
    "<sandbox_output>",
    "<tool_response>",
    "<|im_start|>",
    '{"arguments":{"code":"1"}}',
    "<",
    "</",
    "code>",
]
PIECES = st.lists(st.one_of(st.sampled_from(TAGS), st.text(max_size=8)), max_size=12)


@given(PIECES, PIECES, st.booleans())
def test_it_never_raises(reasoning: list[str], content: list[str], truncated: bool) -> None:
    said = parse("".join(reasoning), "".join(content), PROFILE, truncated=truncated)
    if isinstance(said, Code):
        assert said.source.strip()
    if isinstance(said, Answer):
        assert said.text
    parse_final("".join(reasoning), "".join(content), PROFILE, truncated=truncated)


@given(PIECES, PIECES, st.integers(1, 9), st.booleans())
def test_a_stream_is_read_as_the_whole(reasoning: list[str], content: list[str], size: int, stop: bool) -> None:
    whole, streamed = TurnText(PROFILE, stop_at_code=stop), TurnText(PROFILE, stop_at_code=stop)
    first, second = "".join(reasoning), "".join(content)
    whole.feed(first, second)
    for at in range(0, len(first), size):
        streamed.feed(first[at : at + size], "")
    for at in range(0, len(second), size):
        streamed.feed("", second[at : at + size])
    assert (streamed.reasoning, streamed.content, streamed.cut) == (whole.reasoning, whole.content, whole.cut)


def test_history_is_what_the_template_writes() -> None:
    assert PROFILE.history("a\n", "\n\nb") == "<think>\na\n</think>\n\nb"
    assert PROFILE.history("a", "") == "<think>\na\n</think>\n\n"
