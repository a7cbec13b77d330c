"""What goes wrong on purpose: set through `/sim/faults`, read by the engine and the HTTP layer."""

from __future__ import annotations

import random

from pydantic import BaseModel, ConfigDict, Field


class Faults(BaseModel):
    """The faults in force. A PUT replaces all of them; what it leaves out is off.

    Attributes:
        hang: the engine takes no step, as with a deadlocked GPU; `/health` stays 200.
        token_delay_ms: time between two tokens of a request.
        first_token_delay_ms: time from admission to the first token.
        next_statuses: HTTP statuses for the next chat requests, one each.
        error_rate: the part of all chat requests that fails, 0 to 1, drawn with a fixed seed.
        error_status: the HTTP status of those.
        drop_after_tokens: cut the connection after so many tokens; None for never.
        drop_count: for how many requests.
        next_texts: what the model says to the next chat requests, one each, instead of the policy.
        health_status: what `/health` answers.
    """

    model_config = ConfigDict(extra="forbid")

    hang: bool = False
    token_delay_ms: float = Field(default=0, ge=0)
    first_token_delay_ms: float = Field(default=0, ge=0)
    next_statuses: list[int] = []
    error_rate: float = Field(default=0, ge=0, le=1)
    error_status: int = Field(default=500, ge=400, le=599)
    drop_after_tokens: int | None = Field(default=None, ge=0)
    drop_count: int = Field(default=1, ge=0)
    next_texts: list[str] = []
    health_status: int = Field(default=200, ge=200, le=599)


class Injector:
    """Holds the faults and uses up the ones that count requests."""

    def __init__(self, faults: Faults):
        self._initial = faults
        self._random = random.Random(1)
        self.faults = faults.model_copy(deep=True)

    def set(self, faults: Faults) -> None:
        """Put other faults in force."""
        self.faults = faults
        self._random.seed(1)

    def reset(self) -> None:
        """Go back to the faults that the process was started with."""
        self.set(self._initial.model_copy(deep=True))

    def failure(self) -> int | None:
        """Return the status that the next chat request fails with, or None."""
        if self.faults.next_statuses:
            return self.faults.next_statuses.pop(0)
        if self.faults.error_rate and self._random.random() < self.faults.error_rate:
            return self.faults.error_status
        return None

    def text(self) -> str | None:
        """Return what the model is to say to the next chat request, or None."""
        return self.faults.next_texts.pop(0) if self.faults.next_texts else None

    def drop_after(self) -> int | None:
        """Return after how many tokens the next chat request's connection is cut, or None."""
        if self.faults.drop_after_tokens is None or self.faults.drop_count == 0:
            return None
        self.faults.drop_count -= 1
        return self.faults.drop_after_tokens
