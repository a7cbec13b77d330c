"""Words of the API that bring their documentation along."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Described(StrEnum):
    """A member is its wire value; the text after it is its description, for the documentation."""

    description: str

    def __new__(cls, value: str, description: str) -> Self:
        """Take both apart."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member
