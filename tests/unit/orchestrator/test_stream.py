"""What may be shown of a turn while it is said: tables of pieces, and properties over arbitrary text and splits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s1vl_orchestrator.protocol.parser import Answer, Code, Malformed, TurnText, parse, parse_final
from s1vl_orchestrator.protocol.profile import Profile, built_in_names, load_profile
from s1vl_orchestrator.protocol.repetition import WINDOW, repeats
from s1vl_orchestrator.protocol.stream import Answering, Channel, Event, Over, StreamParser, Thinking

PROFILE = load_profile("s1vl")
FENCED = "<code>\n```python\nprint(1)\n```\n</code>"
THINK, SAY = Channel.REASONING, Channel.CONTENT


def shown(events: list[Event]) -> tuple[str, str]:
    """What a reader has seen: thinking, and the answer after its restarts."""
    thinking = answer = ""
    for event in events:
        match event:
            case Thinking(text):
                thinking += text
            case Answering(text, restart):
                answer = text if restart else answer + text
    return thinking, answer


def run(
    pieces: list[tuple[Channel, str]],
    *,
    profile: Profile = PROFILE,
    code_allowed: bool = True,
    truncated: bool = False,
) -> tuple[list[Event], StreamParser]:
    parser = StreamParser(profile, code_allowed=code_allowed)
    events = [event for channel, text in pieces for event in parser.feed(channel, text)]
    return events + parser.finish(truncated=truncated).events, parser


@pytest.mark.parametrize(
    ("pieces", "events"),
    [
        pytest.param(
            [
                (THINK, "look "),
                (THINK, "there"),
                (SAY, "\n\n<answer>"),
                (SAY, "red "),
                (SAY, "cat</ans"),
                (SAY, "wer>"),
            ],
            [Thinking("look "), Thinking("there"), Answering("red"), Answering(" cat")],
            id="an answer comes as it is said",
        ),
        pytest.param(
            [(THINK, "look <co"), (THINK, "de>\n```python\nx"), (THINK, "\n```\n</code>"), (THINK, "6")],
            [Thinking("look "), Over(Code("x"))],
            id="code while thinking",
        ),
        pytest.param(
            [(SAY, "I crop."), (SAY, f"\n{FENCED[:-1]}"), (SAY, "> and")],
            [Thinking("I crop."), Over(Code("print(1)"))],
            id="code after thinking, with a word before",
        ),
        pytest.param(
            [(THINK, "the `<code>` tag\n"), (THINK, "a < b")],
            [Thinking("the `<code>` tag\n"), Thinking("a < b"), Answering("the `<code>` tag\na < b")],
            id="a tag named in prose is shown",
        ),
        pytest.param(
            [(THINK, "<code>1"), (THINK, "+1</code>")],
            [Over(Code("1+1"))],
            id="code on one line",
        ),
        pytest.param(
            [(THINK, "is it <code>\nor"), (SAY, "red")],
            [Thinking("is it "), Thinking("<code>\nor"), Answering("red")],
            id="a tag that was none is shown when the thinking ends",
        ),
        pytest.param(
            [(SAY, "It is "), (SAY, "red.")],
            [Answering("It is red.")],
            id="an answer without tags comes whole",
        ),
        pytest.param(
            [(SAY, "<answer>red</answer>"), (SAY, "\nno,\n<answer>blue</answer>")],
            [Answering("red"), Answering("blue", restart=True)],
            id="the last answer holds",
        ),
        pytest.param(
            [(SAY, "<answer>I run\n"), (SAY, FENCED)],
            [Answering("I run"), Answering("", restart=True), Over(Code("print(1)"))],
            id="code in an answer that was not closed",
        ),
        pytest.param(
            [(SAY, "Because.\n<answer>red"), (SAY, "\n"), (SAY, "cat")],
            [Thinking("Because."), Answering("red"), Answering("\ncat")],
            id="an answer that was not closed",
        ),
    ],
)
def test_what_is_shown(pieces: list[tuple[Channel, str]], events: list[Event]) -> None:
    assert run(pieces)[0] == events


def test_nothing_is_told_after_the_end() -> None:
    parser = StreamParser(PROFILE)
    assert parser.feed(SAY, FENCED) == [Over(Code("print(1)"))]
    assert parser.over
    assert parser.feed(SAY, "more") == []
    said = parser.finish(truncated=True)
    assert (said.content, said.intent, said.events) == (FENCED, Code("print(1)"), [])


def test_the_final_turn_does_not_stop_at_code() -> None:
    events, parser = run([(SAY, FENCED), (SAY, "<answer>red</answer>")], code_allowed=False)
    assert not parser.over
    assert shown(events) == ("", "red")


def test_a_turn_that_goes_round_in_circles_is_left() -> None:
    parser = StreamParser(PROFILE)
    for _ in range(1000):
        if parser.feed(THINK, "Wait, let me look again. ") and parser.over:
            break
    assert parser.over
    assert len(parser.reasoning) < WINDOW + 512
    assert isinstance(parser.finish().intent, Malformed)


@pytest.mark.parametrize(
    ("text", "circles"),
    [
        ("ab" * 2000, True),
        ("\n" * 4000, True),
        ("x" * 4000, True),
        ("他看" * 2000, True),
        ("fine. " * 30, False),
        ("".join(f"row {n} | value {n * n}\n" for n in range(400)), False),
        (("a" * 700 + "b") * 4, False),
    ],
)
def test_circles(text: str, circles: bool) -> None:
    assert repeats(text) == circles


TAGS = ["<code>", "</code>", "```python\n", "```", "\n", "<answer>", "</answer>", "<tool_call>", "</tool_call>"]
TAGS += ["</think>", "<think>", "<sandbox_output>", "<interpreter>", "Code execution result:", "<", "</", "code>", " "]
TAGS += ['{"arguments":{"code":"1"}}', "x" * 3000]
TEXT = st.lists(st.one_of(st.sampled_from(TAGS), st.text(max_size=8)), max_size=12).map("".join)
PROFILES = st.sampled_from(built_in_names()).map(load_profile)


@given(
    PROFILES,
    TEXT,
    TEXT,
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
    st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)]),
)
def test_pieces_make_the_whole(
    profile: Profile, reasoning: str, content: str, sizes: list[int], flags: tuple[int, int]
) -> None:
    code_allowed, truncated = map(bool, flags)
    pieces = []
    for channel, text in ((THINK, reasoning), (SAY, content)):
        at = turn = 0
        while at < len(text):
            size = sizes[turn % len(sizes)]
            pieces.append((channel, text[at : at + size]))
            at, turn = at + size, turn + 1
    events, parser = run(pieces, profile=profile, code_allowed=code_allowed, truncated=truncated)
    said = parser.finish()
    whole = TurnText(profile, stop_at_code=code_allowed)
    whole.feed(reasoning, content)
    assert (said.reasoning, said.content, parser.over) == (whole.reasoning, whole.content, whole.cut)
    if code_allowed:
        assert said.intent == parse(whole.reasoning, whole.content, profile, truncated=truncated and not whole.cut)
    else:
        answer = parse_final(whole.reasoning, whole.content, profile, truncated=truncated and not whole.cut)
        assert (said.intent.text if isinstance(said.intent, Answer) else None) == answer
    assert shown(events)[1] == (said.intent.text if isinstance(said.intent, Answer) else "")
    assert [event for event in events if isinstance(event, Over)] == ([Over(said.intent)] if parser.over else [])


@given(PROFILES, TEXT, TEXT, st.integers(1, 9))
def test_nothing_behind_the_first_close_tag_is_run(profile: Profile, reasoning: str, content: str, size: int) -> None:
    parser = StreamParser(profile)
    for channel, text in ((THINK, reasoning), (SAY, content)):
        for at in range(0, len(text), size):
            parser.feed(channel, text[at : at + size])
    for text in (parser.reasoning, parser.content):
        for close in (profile.code_close, profile.call_close):
            assert close not in text or text.index(close) + len(close) == len(text)
    intent = parser.finish().intent
    if isinstance(intent, Code):
        assert "</code>" not in intent.source


@given(PROFILES, TEXT, st.integers(1, 9))
def test_thinking_is_shown_in_order_and_never_with_half_a_tag(profile: Profile, text: str, size: int) -> None:
    parser = StreamParser(profile)
    seen = ""
    for at in range(0, len(text), size):
        events = parser.feed(THINK, text[at : at + size])
        seen += "".join(event.text for event in events if isinstance(event, Thinking))
        assert parser.reasoning.startswith(seen)
        for tag in (profile.code_open, profile.code_close, profile.call_open, profile.call_close, *profile.cut_before):
            halves = [tag[:length] for length in range(1, len(tag))]
            rest = parser.reasoning[len(seen) :]
            assert not any(seen.endswith(half) and rest.startswith(tag[len(half) :]) for half in halves)
            if not rest and not parser.over:
                assert not seen.endswith(tuple(halves))
