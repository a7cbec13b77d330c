"""The protocol profiles: transcripts of each, what a profile must be, and how code's folders are rewritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from s1vl_orchestrator.protocol.parser import Answer, Code, Malformed
from s1vl_orchestrator.protocol.profile import Profile, ProfileError, built_in_names, load_profile
from s1vl_orchestrator.protocol.stream import Answering, Channel, StreamParser, Thinking

NAMES = ["deepeyesv2", "pyvision", "s1vl", "thyme", "tool_call"]
TRANSCRIPTS = [
    pytest.param(name, entry, id=f"{name}: {entry['name']}")
    for name in NAMES
    for entry in yaml.safe_load((Path(__file__).parent / f"transcripts/{name}.yaml").read_text(encoding="utf-8"))
]


def data(name: str = "s1vl") -> dict[str, Any]:
    return load_profile(name).model_dump(mode="json")


def loaded(changes: dict[str, Any]) -> Profile:
    return load_profile(yaml.safe_dump({**data(), **changes}))


def test_these_are_built_in() -> None:
    assert built_in_names() == NAMES
    assert [load_profile(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(("name", "entry"), TRANSCRIPTS)
def test_transcripts(name: str, entry: dict[str, Any], size: int) -> None:
    parser = StreamParser(load_profile(name))
    shown, answer = "", ""
    texts = {Channel.REASONING: entry.get("reasoning", ""), Channel.CONTENT: entry.get("content", "")}
    last = Channel.CONTENT if texts[Channel.CONTENT] else Channel.REASONING
    texts[last] += entry.get("repeated", "") * 500
    events = []
    for channel, text in texts.items():
        for at in range(0, len(text), size):
            events += parser.feed(channel, text[at : at + size])
    said = parser.finish(truncated=entry.get("truncated", False))
    for event in [*events, *said.events]:
        match event:
            case Thinking(text):
                shown += text
            case Answering(text, restart):
                answer = text if restart else answer + text
    match said.intent:
        case Code(source):
            assert source == entry["code"]
            assert source not in shown
            assert answer == ""
        case Answer(text):
            assert text == entry["answer"] == answer
        case Malformed(why):
            assert entry["malformed"] in why


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": []}, "tags: Extra inputs"),
        ({"code_open": ""}, "code_open: .*at least 1 character"),
        ({"code_open": " "}, "code_open: .*pattern"),
        ({"answer_open": "<code>"}, "'<code>' is part of the tag '<code>'"),
        ({"call_open": "<code>json"}, "'<code>' is part of the tag '<code>json'; the two cannot be told apart"),
        ({"cut_before": ["code>"]}, "'code>' is part of the tag"),
        ({"cut_before": "<x>"}, "cut_before: "),
        ({"result_role": "assistant"}, "result_role: .*'tool' or 'user'"),
        ({"result_text": "output"}, "result_text: {text} is missing"),
        ({"result_text": "{text} {why}"}, "result_text: there is no {why}; it may have {text}"),
        ({"image_names": ["image"]}, "image_names: 'image' is no name of a variable"),
        ({"image_names": ["image {n}"]}, "image_names: 'image {n}' is no name of a variable"),
        ({"output_prefixes": ["/"]}, "output_prefixes.0: "),
        ({"output_prefixes": ["out"]}, "output_prefixes.0: "),
        ({"sampling": {"max_tokens": 5}}, "sampling.max_tokens"),
        ({"sampling": {"temperature": "hot"}}, "sampling.temperature"),
        ({"name": "My Protocol"}, "name: .*pattern"),
        ({"texts": {**data()["texts"], "image": "{path}"}}, "texts: image: {height}, {width} is missing"),
        ({"texts": {**data()["texts"], "timeout": "{seconds:.1f}"}}, "texts: timeout: a placeholder takes no format"),
        ({"texts": {**data()["texts"], "malformed": "{why} {"}}, "texts: malformed: .*write a brace .* twice"),
        ({"texts": {**data()["texts"], "answer_now": "{why.real}"}}, "texts: answer_now: there is no {why.real}"),
        ({"texts": {**data()["texts"], "answer_now": "Now."}}, "texts: answer_now: {why} is missing"),
        ({"limits": {**data()["limits"], "turn_tokens": 0}}, "limits.turn_tokens: .*greater than 0"),
        ({"limits": {**data()["limits"], "answer_tokens": 9000}}, "answer_tokens 9000 is over turn_tokens 8192"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        loaded(changes)


def test_missing_fields_are_named() -> None:
    with pytest.raises(ProfileError, match=r"code_open: Field required; .*limits: Field required"):
        load_profile("name: mine\n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nope", "unknown protocol 'nope'; there is deepeyesv2, pyvision, s1vl, thyme, tool_call"),
        ("../s1vl", "unknown protocol"),
        ("", "unknown protocol ''"),
        ("a: [", "not YAML"),
        ("- a: 1", "cannot be used: protocol: "),
    ],
)
def test_other_sources(source: str, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        load_profile(source)


def test_a_profile_of_the_users_own() -> None:
    mine = loaded({"name": "mine", "code_open": "[[run]]", "code_close": "[[/run]]", "cut_before": ["[[result]]"]})
    parser = StreamParser(mine)
    for piece in ("look [[", "run]]\nprint(1)\n[[/ru", "n]] rest"):
        parser.feed(Channel.REASONING, piece)
    assert parser.finish().intent == Code("print(1)")


@pytest.mark.parametrize(
    ("code", "rewritten"),
    [
        ("open('/tmp/a.png')", "open('/job/out/a.png')"),
        ('d = "/tmp"', 'd = "/job/out"'),
        ("f'/tmp/{n}.png'", "f'/job/out/{n}.png'"),
        ("x.save('/mnt/data/temp_processed_images/a.jpg')", "x.save('/job/out/a.jpg')"),
        ("'/tmpfile'", "'/tmpfile'"),
        ("'/var/tmp/a'", "'/var/tmp/a'"),
        ("'~/tmp/a'", "'~/tmp/a'"),
        ("'/tmp.png'", "'/tmp.png'"),
        ("# see /tmp/a", "# see /tmp/a"),
        ("a /tmp/ b", "a /tmp/ b"),
        ("'write to /tmp/a'", "'write to /tmp/a'"),
        ("'/mnt/data/images/a.png'", "'/mnt/data/images/a.png'"),
    ],
)
def test_folders_that_models_hard_code(code: str, rewritten: str) -> None:
    assert load_profile("s1vl").rewrite(code, "/job/out") == rewritten


def test_a_folder_with_the_inputs_is_not_rewritten() -> None:
    code = "open('/tmp/images/a.png'); save('/mnt/data/temp_processed_images/b.png')"
    rewritten = "open('/tmp/images/a.png'); save('/tmp/images/.s1vl/out/b.png')"
    assert load_profile("s1vl").rewrite(code, "/tmp/images/.s1vl/out") == rewritten


@given(st.text(), st.sampled_from(["/job/out", r"/a\1/b"]))
def test_code_without_such_folders_stays_as_it_is(code: str, folder: str) -> None:
    profile = load_profile("s1vl")
    if not any(prefix in code for prefix in profile.output_prefixes):
        assert profile.rewrite(code, folder) == code
    assert profile.rewrite(f"{code}\nx = '/tmp/y'", folder).endswith(f"x = '{folder}/y'")


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("s1vl", [("image_1", 0), ("image_2", 1)]),
        ("deepeyesv2", [("image_1", 0), ("image_2", 1)]),
        ("pyvision", [("image_clue_0", 0), ("image_clue_1", 1)]),
    ],
)
def test_variables_of_the_inputs(name: str, variables: list[tuple[str, int]]) -> None:
    assert load_profile(name).variables(2) == variables


@pytest.mark.parametrize("name", NAMES)
def test_only_pyvision_names_what_code_makes(name: str) -> None:
    assert load_profile(name).made_variables(2) == (["image_clue_2"] if name == "pyvision" else [])


@pytest.mark.parametrize(
    ("caption", "names"),
    [("{path}", []), ("{path} {{n}}", []), ("{path} {n}", ["image_3"]), ("{index}: {path}", ["image_3"])],
)
def test_names_of_made_pictures_follow_their_captions(caption: str, names: list[str]) -> None:
    assert loaded({"texts": {**data()["texts"], "new_image": caption}}).made_variables(2) == names
