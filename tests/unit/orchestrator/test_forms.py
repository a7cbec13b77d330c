"""Every text that is no YAML, or not of its form, is a FormError that says so."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, Field

from s1vl_orchestrator.config import ConfigError, parse_config
from s1vl_orchestrator.forms import FormError, read_yaml
from s1vl_orchestrator.protocol.profile import ProfileError, load_profile


class Form(BaseModel):
    size: int = Field(ge=1)
    names: list[str] = []


def test_a_good_text() -> None:
    assert read_yaml("size: 2\nnames: [a]", Form, "form") == Form(size=2, names=["a"])


NO_YAML = {
    "unclosed": "a: [",
    "tab": "a:\n\tb: 1",
    "two documents": "a: 1\n---\nb: 2",
    "a date that is none": "a: 2001-99-99",
    "a truth value that is none": "a: !!bool x",
    "a time that is none": "a: !!timestamp x",
    "a tag of Python's": "a: !!python/object/apply:os.system [true]",
    "a control character": "a: \x00",
    "nesting": "a: " + "[" * 3000,
}


@pytest.mark.parametrize("text", NO_YAML.values(), ids=NO_YAML.keys())
def test_what_is_not_yaml(text: str) -> None:
    with pytest.raises(FormError, match=r"not YAML: ."):
        read_yaml(text, Form, "form")
    with pytest.raises(ConfigError, match=r"not YAML: ."):
        parse_config(text)
    with pytest.raises(ProfileError, match=r"cannot be used: not YAML: ."):
        load_profile(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "form: Input should be"),
        ("- a", "form: Input should be"),
        ("size: 0", "size: Input should be greater than or equal to 1"),
        ("size: many\nnames: [1]", r"size: Input .*; names.0: Input"),
    ],
)
def test_every_field_at_fault_is_named(text: str, said: str) -> None:
    with pytest.raises(FormError, match=said):
        read_yaml(text, Form, "form")
