"""YAML texts of people, read into models with every mistake named."""

from __future__ import annotations

from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

M = TypeVar("M", bound=BaseModel)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


class Form(BaseModel):
    """Field names are camelCase in the text."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_camel, populate_by_name=True)


class FormError(ValueError):
    """A text that is not of its form; the message names every field at fault."""


def read_yaml(text: str, model: type[M], name: str) -> M:
    """Read a YAML text.

    Args:
        text: The text.
        model: Its form.
        name: What the whole is called where no single field is at fault.

    Raises:
        FormError: If it is not YAML or not of this form.
    """
    try:
        raw = yaml.safe_load(text)
    except Exception as error:  # PyYAML lets through what a tag makes fail: `!!bool x` is a KeyError, a bad date more.
        what = "nested too deeply" if isinstance(error, RecursionError) else error
        raise FormError(f"not YAML: {what}") from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or name}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_input=False)
        )
        raise FormError(problems) from error
