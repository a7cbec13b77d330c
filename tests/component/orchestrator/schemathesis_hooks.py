"""For schemathesis: what it cannot know of our API, and a check of our own."""

from __future__ import annotations

from typing import Any

import schemathesis

PATIENCE_SECONDS = 60


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Give every job enough time: what is too short is a 504, as documented, and no finding."""
    body = case.body
    if isinstance(body, dict):
        asked = body.get("deadline_seconds")
        if isinstance(asked, int | float) and not isinstance(asked, bool) and 1 <= asked < PATIENCE_SECONDS:
            body["deadline_seconds"] = PATIENCE_SECONDS


@schemathesis.check
def form_is_documented(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> bool | None:
    """What the schema allows may be refused for what it means (no picture, no such model), but not for its form."""
    if case.meta is None or not case.meta.generation.mode.is_positive or response.status_code != 400:
        return None
    errors = response.json()["error"]["details"].get("errors")
    assert not errors, f"the schema allows what is refused: {errors}"
    return None
