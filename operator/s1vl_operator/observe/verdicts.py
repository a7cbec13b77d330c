"""What a check says, and how it says it."""

from __future__ import annotations

from dataclasses import dataclass

from s1vl_operator.api.conditions import Status
from s1vl_operator.api.reasons import Nature, Reason

MESSAGE_MAX = 2048
"""Characters of a message at most; the API's own limit is 32768, people's is lower."""

SHOWN = 5
"""Tenants that a message names before it only counts."""


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        status: of the condition.
        reason: why.
        message: the same for people, without what to do about it.
        cause: what brought the reason about, where that says better what to do.
    """

    status: Status
    reason: Reason
    message: str
    cause: Reason | None = None

    @property
    def told(self) -> str:
        """The message, and what to do where it asks for a hand."""
        cause = self.cause or self.reason
        if cause.nature is not Nature.TROUBLE:
            return self.message[:MESSAGE_MAX]
        said = self.message[: MESSAGE_MAX - len(cause.remedy) - 2].rstrip(". ")
        return f"{said}. {cause.remedy}" if said else cause.remedy


def listed(words: list[str], separator: str = ", ") -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return separator.join(words[:SHOWN]) + more
