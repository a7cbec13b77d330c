"""What differs between the releases of vLLM and matters here, in one table. Pure.

Two things that differ need no entry, as one way holds for all of them: `max_tokens` never goes over the context (older
ones refuse that, newer ones silently cut it), and thinking in a plain request's history goes under both of its names.
What every release that can load the model takes has none either (0.11.0 is the first): `cache_salt`,
`structured_outputs`, a picture's `uuid`, also alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RELEASE = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:\.post\d+)?(?:\+.*)?")


@dataclass(frozen=True)
class Facts:
    """What holds for an engine.

    Attributes:
        thinking: Names of the answers' field for what the model thinks, the first that has text counts.
    """

    thinking: tuple[str, ...]


_TABLE = {
    # vLLM's pull request 27752 added the new name; the published sources of 0.11.1 to 0.14.1 fill both with the same
    # text, those from 0.16.0 on the new one alone (pull request 33402).
    (0, 11, 1): Facts(thinking=("reasoning",)),
    (0, 0, 0): Facts(thinking=("reasoning_content",)),
}
"""From which release on, the newest first."""

UNKNOWN = Facts(thinking=("reasoning", "reasoning_content"))
"""For an engine that does not say, or whose version is none of a release: a nightly may have either behaviour."""


def facts_of(version: str) -> Facts:
    """What holds for a version as `GET /version` gives it, e.g. `0.11.2` or `0.32.0+cpu`."""
    found = _RELEASE.fullmatch(version)
    if not found:
        return UNKNOWN
    release = tuple(int(number or 0) for number in found.groups())
    return next(facts for since, facts in _TABLE.items() if release >= since)
