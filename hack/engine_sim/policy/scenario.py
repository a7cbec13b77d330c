"""Scenarios: YAML files of states, each with conditions and the text templates of what is said in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

DIRECTORY = Path(__file__).resolve().parents[1] / "scenarios"


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class When(_Strict):
    """The conditions of a state; all that are given must hold.

    Attributes:
        turn: assistant messages since the question, exactly.
        result: a pattern found in what came back last; its named groups become values.
        any_result: the same, in everything that came back since the question, the newest first.
        image: whether an image came back last.
        picture: whether an image came with the question.
        marked: whether the question's first image has a strongly coloured part.
        forced: whether an answer is demanded.
        equal: two names whose values must be the same (after `let`).
    """

    turn: int | None = None
    result: Pattern | None = None
    any_result: Pattern | None = None
    image: bool | None = None
    picture: bool | None = None
    marked: bool | None = None
    forced: bool | None = None
    equal: tuple[str, str] | None = None


class State(_Strict):
    """One thing to say. Templates take `${name}` from groups, `let`, and the values listed in the README.

    Attributes:
        when: the conditions.
        let: more values, each by a function and the names of its arguments: `colour_name r g b`.
        think: what comes before `</think>`.
        code: python to run; or
        answer: the final answer.
    """

    when: When = When()
    let: dict[str, str] = {}
    think: str
    code: str | None = None
    answer: str | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> State:
        if (self.code is None) == (self.answer is None):
            raise ValueError("a state has either code or answer")
        return self


class Scenario(_Strict):
    """What happens for the questions that match.

    Attributes:
        name: the file's name without its ending.
        match: a pattern found in the question.
        order: scenarios are tried from the lowest; the last is the one for everything else.
        token_delay_ms: extra time for each token.
        states: tried in order; the first whose conditions hold is said.
    """

    name: str
    match: Pattern
    order: int
    token_delay_ms: float = Field(default=0, ge=0)
    states: list[State] = Field(min_length=1)

    @property
    def needs_code(self) -> bool:
        """Some state runs code."""
        return any(state.code is not None for state in self.states)


class ScenarioError(Exception):
    """A scenario file that cannot be used; the message names the file and the field."""


def load_scenarios(directory: Path = DIRECTORY) -> list[Scenario]:
    """Read all `*.yaml` of a folder, in the order in which they are tried.

    Raises:
        ScenarioError: when one is malformed, or there is none.
    """
    scenarios = [_load(path) for path in sorted(directory.glob("*.yaml"))]
    if not scenarios:
        raise ScenarioError(f"no scenarios in {directory}")
    return sorted(scenarios, key=lambda scenario: scenario.order)


def _load(path: Path) -> Scenario:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Scenario.model_validate({"name": path.stem, **content})
    except (yaml.YAMLError, ValidationError, TypeError) as error:
        raise ScenarioError(f"{path}: {error}") from error
