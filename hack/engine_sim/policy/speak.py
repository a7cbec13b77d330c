"""Choosing a state and saying it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hack.engine_sim.policy.scenario import Scenario, ScenarioError, State, When
from hack.engine_sim.policy.situation import Situation
from hack.engine_sim.vision import ImageFacts, colour_name, place_name

EXCERPT = 300  # characters of a result that are repeated when nothing in it was understood

Values = dict[str, str]


@dataclass(frozen=True)
class Speech:
    """What the model says in one turn, thinking first.

    Attributes:
        text: the raw text; generation starts inside `<think>`.
        scenario: which scenario, and
        state: which of its states (counted from 0) it came from.
        token_delay: extra seconds for each token.
    """

    text: str
    scenario: str
    state: int
    token_delay: float


def speak(situation: Situation, scenarios: Sequence[Scenario]) -> Speech:
    """Say what the first fitting scenario has to say; scenarios with code only where the prompt allows code.

    Raises:
        ScenarioError: when no scenario or state fits, or a template names a value that is not there.
    """
    for scenario in scenarios:
        if scenario.needs_code and not situation.code_allowed:
            continue
        if not re.search(scenario.match, situation.question):
            continue
        for at, state in enumerate(scenario.states):
            values = _values_if(state, situation)
            if values is not None:
                text = _say(state, values, situation, f"{scenario.name}, state {at}")
                return Speech(text, scenario.name, at, scenario.token_delay_ms / 1000)
        raise ScenarioError(f"{scenario.name}: no state fits turn {situation.turn}")
    raise ScenarioError("no scenario fits the question")


def _values_if(state: State, situation: Situation) -> Values | None:
    """Return the values for a state's templates, or None when its conditions do not hold."""
    when = state.when
    if not _plain_conditions(when, situation):
        return None
    values = _base_values(situation)
    places = ((when.result, [situation.result]), (when.any_result, [situation.result, situation.earlier]))
    for pattern, texts in places:
        if pattern is None:
            continue
        found = next((match for text in texts if (match := _last_match(pattern, text))), None)
        if found is None:
            return None
        values.update({name: value or "" for name, value in found.groupdict().items()})
    for name, call in state.let.items():
        values[name] = _call(call, values)
    if when.equal and values[when.equal[0]] != values[when.equal[1]]:
        return None
    return values


def _plain_conditions(when: When, situation: Situation) -> bool:
    given = (
        (when.turn, situation.turn),
        (when.image, bool(situation.result_images)),
        (when.picture, bool(situation.question_images)),
        (when.marked, any(image.mark for image in situation.question_images[:1])),
        (when.forced, situation.forced),
    )
    return all(wanted is None or wanted == actual for wanted, actual in given)


def _last_match(pattern: str, text: str) -> re.Match[str] | None:
    match = None
    for found in re.finditer(pattern, text):
        match = found
    return match


def _base_values(situation: Situation) -> Values:
    values = {
        "turn": str(situation.turn),
        "result": " ".join(situation.result.split())[:EXCERPT],
        "picture.count": str(len(situation.question_images)),
    }
    if situation.question_images:
        values |= _image_values("picture", situation.question_images[0])
    if situation.result_images:
        values |= _image_values("image", situation.result_images[-1])
    return values


def _image_values(prefix: str, facts: ImageFacts) -> Values:
    return {
        f"{prefix}.width": str(facts.width),
        f"{prefix}.height": str(facts.height),
        f"{prefix}.mean": ", ".join(map(str, facts.mean)),
        f"{prefix}.mean_colour": colour_name(*facts.mean),
        f"{prefix}.dominant": facts.dominant,
        f"{prefix}.mark_colour": colour_name(*facts.mark) if facts.mark else "no strong colour",
        f"{prefix}.mark_place": place_name(*facts.mark_centre) if facts.mark_centre else "nowhere",
    }


def _colour(red: str, green: str, blue: str) -> str:
    return colour_name(float(red), float(green), float(blue))


def _place(*box_and_size: str) -> str:
    left, top, right, bottom, width, height = map(float, box_and_size)
    return place_name((left + right) / 2 / width, (top + bottom) / 2 / height)


_FUNCTIONS: dict[str, Callable[..., str]] = {"colour_name": _colour, "place": _place}


def _call(call: str, values: Values) -> str:
    name, *arguments = call.split()
    return _FUNCTIONS[name](*(values[argument] for argument in arguments))


def _fill(template: str, values: Values, where: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ScenarioError(f"{where}: there is no value ${{{match[1]}}}")
        return values[match[1]]

    return re.sub(r"\$\{([\w.]+)\}", value, template).strip("\n")


def _say(state: State, values: Values, situation: Situation, where: str) -> str:
    thought = _fill(state.think, values, where)
    if state.code is not None:
        return f"{thought}\n</think>\n\n<code>\n```python\n{_fill(state.code, values, where)}\n```\n</code>"
    answer = _fill(state.answer or "", values, where)
    body = f"<answer>{answer}</answer>" if situation.answer_tags else answer
    return f"{thought}\n</think>\n\n{body}"
