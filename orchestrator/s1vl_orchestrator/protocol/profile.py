"""A protocol profile: the prompt, tags, wrappers and limits of one way of thinking with images, as data."""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator


class ProfileLimits(BaseModel):
    """Numbers that belong to the protocol and not to a deployment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turn_tokens: int = Field(gt=0, description="Most tokens one turn may produce.")
    answer_tokens: int = Field(gt=0, description="Tokens kept back for the final answer.")
    input_pixels: int = Field(gt=0, description="Most px of an input as the model sees it.")
    new_pixels: int = Field(gt=0, description="Most px of a picture made on the way as the model sees it.")
    new_images_per_turn: int = Field(gt=0)
    output_chars: int = Field(gt=0, description="Most characters of a cell's output that the model sees.")


class Texts(BaseModel):
    """What the model is told; `{...}` fields are named beside each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: str
    images: str = Field(description="Before the list of inputs.")
    image: str = Field(description="{n}, {path}, {width}, {height}, {shown_width}, {shown_height}")
    rotated_image: str = Field(description="After the line of an input that EXIF rotates.")
    new_image: str = Field(description="{path}, {width}, {height}")
    dropped_image: str = Field(description="{path}")
    no_output: str
    timeout: str = Field(description="{seconds}")
    kernel_lost: str
    malformed: str = Field(description="{why}")
    repeated: str
    answer_now: str = Field(description="{why}")


class Profile(BaseModel):
    """One protocol. All tags are plain strings, compared exactly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    code_open: str
    code_close: str
    call_open: str
    call_close: str
    answer_open: str
    answer_close: str
    think_open: str
    think_close: str
    cut_before: tuple[str, ...] = Field(
        description="Marks of a result that the model invents; what follows is dropped."
    )
    stop: tuple[str, ...] = Field(description="Stop strings for the engine.")
    result_role: str
    result_open: str
    result_close: str
    output_prefixes: tuple[str, ...] = Field(description="Folders that models hard-code; they mean the output folder.")
    sampling: dict[str, float | int]
    texts: Texts
    limits: ProfileLimits

    @model_validator(mode="after")
    def _no_empty_tags(self) -> Profile:
        tags = (self.code_open, self.code_close, self.call_open, self.call_close, self.answer_open, self.answer_close)
        if not all((*tags, *self.cut_before, *self.stop)):
            raise ValueError("a tag must not be empty")
        return self

    @property
    def longest_tag(self) -> int:
        """Characters of the longest tag at which a turn is cut."""
        return max(len(tag) for tag in (self.code_close, self.call_close, *self.cut_before))

    def rewrite(self, code: str, output_folder: str) -> str:
        """Point the folders that models hard-code at the job's own output folder."""
        for prefix in self.output_prefixes:
            code = code.replace(prefix, output_folder)
        return code

    def history(self, reasoning: str, content: str) -> str:
        """An assistant message for the next prompt, with the thinking inlined.

        In exactly the form in which the model's chat template writes it, so that the next prompt begins with the
        tokens of this one and the engine's prefix cache holds. Thinking that was not closed is closed.
        """
        thinking = reasoning.strip("\n")
        return f"{self.think_open}\n{thinking}\n{self.think_close}\n\n{content.lstrip(chr(10))}"


@cache
def load_profile(name: str) -> Profile:
    """Load a profile that is part of this package.

    Raises:
        ValueError: If there is none of that name; the message lists what there is.
    """
    folder = resources.files(__package__)
    names = sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))
    if name not in names:
        raise ValueError(f"unknown protocol {name!r}; there is {', '.join(names)}")
    return Profile.model_validate(yaml.safe_load((folder / f"{name}.yaml").read_text()))
