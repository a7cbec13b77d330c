"""A protocol profile: the prompt, tags, wrappers and limits of one way of thinking with images, as data."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from importlib import resources
from itertools import permutations
from string import Formatter
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from s1vl_orchestrator.forms import FormError, read_yaml

Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"\S")]
Folder = Annotated[str, StringConstraints(pattern=r"^(/[\w.-]+)+$")]
Sampled = Literal[
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed"
]

_SIZES = frozenset({"width", "height"})
# What str.format fills in: names that a text must have, and names that it may have.
_PLACEHOLDERS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "image": (frozenset({"path"}) | _SIZES, frozenset({"n", "index", "shown_width", "shown_height"})),
    "new_image": (frozenset({"path"}), _SIZES | {"n", "index"}),
    "dropped_image": (frozenset({"path"}), frozenset()),
    "timeout": (frozenset({"seconds"}), frozenset()),
    "malformed": (frozenset({"why"}), frozenset()),
    "answer_now": (frozenset({"why"}), frozenset()),
}


class ProfileError(ValueError):
    """A profile that cannot be used; the message names every field at fault."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfileLimits(_Data):
    """Numbers that belong to the protocol and not to a deployment."""

    turn_tokens: int = Field(gt=0, description="Most tokens one turn may produce.")
    answer_tokens: int = Field(gt=0, description="Tokens kept back for the final answer.")
    input_pixels: int = Field(ge=65_536, description="Most px of an input as the model sees it.")
    new_pixels: int = Field(ge=65_536, description="Most px of a picture made on the way as the model sees it.")
    new_images_per_turn: int = Field(gt=0)
    output_chars: int = Field(gt=0, description="Most characters of a cell's output that the model sees.")

    @model_validator(mode="after")
    def _answer_in_turn(self) -> ProfileLimits:
        if self.answer_tokens > self.turn_tokens:
            raise ValueError(f"answer_tokens {self.answer_tokens} is over turn_tokens {self.turn_tokens}")
        return self


class Texts(_Data):
    """What the model is told; `{...}` fields are named beside each, and a `{` of the text itself is written `{{`."""

    system: str = Field(min_length=1, description="Taken as it is.")
    images: str = Field(description="Before the list of inputs.")
    image: str = Field(
        description="{path}, {width}, {height}; also {n} (from 1), {index} (from 0), {shown_width}, {shown_height}"
    )
    rotated_image: str = Field(description="After the line of a picture that EXIF rotates.")
    new_image: str = Field(
        description="{path}; also {width}, {height}, and {n} (from 1) or {index} (from 0), counted on from the inputs: "
        "with one of them the picture has the variables that image_names gives to its number."
    )
    dropped_image: str = Field(description="{path}")
    no_output: str = Field(min_length=1)
    timeout: str = Field(description="{seconds}")
    kernel_lost: str = Field(min_length=1)
    malformed: str = Field(description="{why}")
    repeated: str = Field(min_length=1)
    answer_now: str = Field(description="{why}")

    @model_validator(mode="after")
    def _placeholders(self) -> Texts:
        for name, (needed, allowed) in _PLACEHOLDERS.items():
            _check_placeholders(name, getattr(self, name), needed, needed | allowed)
        return self


class Profile(_Data):
    """One protocol. All tags are plain strings, compared exactly.

    Code and tool calls, closed or not, are understood in every protocol: models of one family write those of another.
    """

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    code_open: Tag
    code_close: Tag
    call_open: Tag = Field(description='Before a JSON object with {"arguments": {"code": "..."}}.')
    call_close: Tag
    answer_open: Tag
    answer_close: Tag
    think_open: Tag
    think_close: Tag
    thinking_begun: bool = Field(
        description="The model's chat template opens the thinking itself, with think_open and a line break."
    )
    cut_before: tuple[Tag, ...] = Field(
        description="Marks of a result that the model invents; what follows is dropped."
    )
    stop: tuple[Tag, ...] = Field(description="Stop strings for the engine.")
    result_role: Literal["tool", "user"]
    result_open: str
    result_text: str = Field(description="Around a cell's output: {text}")
    result_images: str = Field(description="Before the first picture.")
    result_close: str
    image_names: tuple[str, ...] = Field(
        description="Variables with the inputs, opened with PIL: {n} (from 1) or {index} (from 0)."
    )
    output_prefixes: tuple[Folder, ...] = Field(
        description="Folders that models hard-code; they mean the output folder."
    )
    sampling: dict[Sampled, float | int]
    texts: Texts
    limits: ProfileLimits

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        tags = (
            *(self.code_open, self.code_close, self.call_open, self.call_close, self.answer_open, self.answer_close),
            *(self.think_open, self.think_close, *self.cut_before),
        )
        for one, other in permutations(tags, 2):
            if one in other:
                raise ValueError(f"the tag {one!r} is part of the tag {other!r}; the two cannot be told apart")
        _check_placeholders("result_text", self.result_text, frozenset({"text"}), frozenset({"text"}))
        for pattern in self.image_names:
            _check_placeholders("image_names", pattern, frozenset(), frozenset({"n", "index"}))
            if not pattern.format(n=1, index=0).isidentifier() or pattern.format(n=1, index=0) == pattern:
                raise ValueError(f"image_names: {pattern!r} is no name of a variable with {{n}} or {{index}}")
        return self

    @cached_property
    def longest_tag(self) -> int:
        """Characters of the longest tag at which a turn is cut."""
        return max(len(tag) for tag in (self.code_close, self.call_close, *self.cut_before))

    def variables(self, count: int) -> list[tuple[str, int]]:
        """Names of variables for `count` inputs, each with the index of its input."""
        return [(name.format(n=at + 1, index=at), at) for name in self.image_names for at in range(count)]

    def made_variables(self, index: int) -> list[str]:
        """Names of variables for a picture that code made, the inputs counted too; none where captions do not count."""
        return [name.format(n=index + 1, index=index) for name in self.image_names] if self._counts_made else []

    @cached_property
    def _counts_made(self) -> bool:
        fields = {field for _, field, _, _ in Formatter().parse(self.texts.new_image)}
        return not fields.isdisjoint({"n", "index"})

    def rewrite(self, code: str, output_folder: str) -> str:
        """Point the folders that models hard-code at the job's own output folder.

        Only where a string literal begins with one, as a whole component of a path. A folder in which the job's own
        lies is left alone: the inputs are there too.
        """
        prefixes = [prefix for prefix in self.output_prefixes if not f"{output_folder}/".startswith(f"{prefix}/")]
        if not prefixes:
            return code
        # The longest first: one may lie in another.
        choice = "|".join(map(re.escape, sorted(prefixes, key=len, reverse=True)))
        return re.sub(rf"""(?<=["'])(?:{choice})(?=["'/])""", lambda _: output_folder, code)

    def split(self, reasoning: str, content: str) -> tuple[str, str]:
        """Thinking and what follows it, for an engine that does not tell them apart."""
        if reasoning or self.think_close not in content:
            return reasoning, content
        thinking, _, content = content.partition(self.think_close)
        return thinking.replace(self.think_open, "", 1), content

    def history(self, reasoning: str, content: str) -> str:
        """An assistant message for the next prompt, with the thinking inlined; thinking that was not closed is closed.

        In exactly the form in which the model said it or its chat template writes it, so that the next prompt begins
        with the tokens of this one and the engine's prefix cache holds.
        """
        reasoning, content = self.split(reasoning, content)
        if self.thinking_begun:
            thinking = reasoning.strip("\n")
            return f"{self.think_open}\n{thinking}\n{self.think_close}\n\n{content.lstrip(chr(10))}"
        if not reasoning:
            return content
        if not content:
            return f"{self.think_open}{reasoning}\n{self.think_close}\n\n"
        return f"{self.think_open}{reasoning}{self.think_close}{content}"


@lru_cache(maxsize=32)
def load_profile(source: str) -> Profile:
    """Load a profile: one of this package by its name, or any by its text, which is YAML of the same form.

    Raises:
        ProfileError: If it cannot be used; the message says why, or which names there are.
    """
    if ":" not in source:
        source = _built_in(source)
    try:
        return read_yaml(source, Profile, "protocol")
    except FormError as error:
        raise ProfileError(f"the protocol cannot be used: {error}") from error


def built_in_names() -> list[str]:
    """The names of the profiles of this package, sorted."""
    folder = resources.files(__package__)
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def _built_in(name: str) -> str:
    names = built_in_names()
    if name not in names:
        raise ProfileError(f"unknown protocol {name!r}; there is {', '.join(names)}")
    return (resources.files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")


def _check_placeholders(name: str, text: str, needed: frozenset[str], allowed: frozenset[str]) -> None:
    try:
        fields = [(field, spec or conversion) for _, field, spec, conversion in Formatter().parse(text)]
    except ValueError as error:
        raise ValueError(f"{name}: {error}; write a brace of the text itself twice") from error
    used = {field for field, _ in fields if field is not None}
    if unknown := sorted(used - allowed):
        raise ValueError(f"{name}: there is no {{{unknown[0]}}}; it may have {_names(allowed)}")
    if missing := needed - used:
        raise ValueError(f"{name}: {_names(missing)} is missing")
    if any(extra for _, extra in fields):
        raise ValueError(f"{name}: a placeholder takes no format")


def _names(names: frozenset[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
