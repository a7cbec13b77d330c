"""One rule, and the rules that several fields share: paths, and the choice of a volume."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic.alias_generators import to_snake

ABSOLUTE = r"^(/[^/:\s]+)+$"
DOTS = r"(^|/)[.]{1,2}(/|$)"
RELATIVE = r"^[^./:\s][^/:\s]*(/[^./:\s][^/:\s]*)*$"


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        at: where it stands: a dotted path from the resource's root, `[]` for each item of a list; "" is the root.
        message: what is said when it does not hold.
        cel: the rule for the API server, `self` being the value there; "" where the schema says it without CEL.
        holds: the rule for the operator, on the model's value there; None for rules about a change, which only the
            API server can see. As in CEL, a rule about an absent value holds.
        field: path below `at` that is to blame; "" is `at` itself.
        blame: the same, where it depends on the value; for the operator only.
    """

    at: str
    message: str
    cel: str
    holds: Callable[[Any], bool] | None
    field: str = ""
    blame: Callable[[Any], str] | None = None


def cel(pattern: str) -> str:
    """A pattern as a CEL expression on `self`."""
    return "self.matches('" + pattern.replace("\\", "\\\\") + "')"


def matches(pattern: str, text: str) -> bool:
    """As CEL's matches: `$` is the end of the text, classes are ASCII."""
    return re.search(pattern.replace("$", r"\Z"), text, re.ASCII) is not None


def absolute(at: str) -> Rule:
    """A path from the root on."""
    return Rule(
        at,
        "must be an absolute, normalised path: it starts with / and does not end with it, and has no //, . or .. as a "
        "part, no spaces and no colons",
        f"{cel(ABSOLUTE)} && !{cel(DOTS)}",
        lambda path: matches(ABSOLUTE, path) and not matches(DOTS, path),
    )


def relative(at: str) -> Rule:
    """A path below some folder, or that folder."""
    return Rule(
        at,
        "must be a relative, normalised path (no part may start with a dot, no spaces, no colons), or empty",
        f"self == '' || {cel(RELATIVE)}",
        lambda path: path == "" or matches(RELATIVE, path),
    )


def claim(at: str, what: str, kinds: tuple[str, ...]) -> tuple[Rule, ...]:
    """The choice between an existing volume, by one of `kinds`, and one to be created by its size; `what` names it."""
    same = [f"has(self.{k}) == has(oldSelf.{k}) && (!has(self.{k}) || self.{k} == oldSelf.{k})" for k in kinds]
    same_class = "has(self.storageClassName) == has(oldSelf.storageClassName)"
    same_class += " && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)"
    choices = [*kinds, "size"]
    return (
        Rule(
            at,
            f"exactly one of {', '.join(choices[:-1])} and {choices[-1]} must be set",
            f"[{', '.join(f'has(self.{choice})' for choice in choices)}].exists_one(x, x)",
            lambda volume: sum(getattr(volume, to_snake(choice)) is not None for choice in choices) == 1,
        ),
        Rule(
            at,
            "storageClassName goes with size only",
            "!has(self.storageClassName) || has(self.size)",
            lambda volume: volume.storage_class_name is None or volume.size is not None,
            "storageClassName",
        ),
        Rule(
            at,
            f"the choice of the {what} is immutable: what is on the old one would stay behind",
            " && ".join(["has(self.size) == has(oldSelf.size)", *same, same_class]),
            None,
        ),
        Rule(
            at,
            "size may grow, not shrink",
            "!has(self.size) || !has(oldSelf.size) || quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            None,
            "size",
        ),
    )
