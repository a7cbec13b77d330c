from __future__ import annotations

from typing import Any

from s1vl_operator.renewals import Renewals


def lease(minute: int, second: int) -> dict[str, Any]:
    metadata = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"renewTime": f"2026-01-01T00:{minute:02}:{second:02}.000000Z"}}


def test_only_a_renewal_soon_after_another_changes_nothing() -> None:
    renewals = Renewals()
    assert renewals.matters("ADDED", "a", lease(0, 0)), "not seen before"
    assert not renewals.matters("MODIFIED", "a", lease(0, 10))
    assert not renewals.matters("MODIFIED", "a", lease(0, 39))
    assert renewals.matters("MODIFIED", "a", lease(0, 39)), "changed otherwise"
    assert renewals.matters("MODIFIED", "a", lease(1, 9)), "it may be asleep by now"
    assert renewals.matters("ADDED", "b", lease(1, 9)), "another one"
    assert renewals.matters("MODIFIED", "a", lease(0, 50)), "set back"
    assert renewals.matters("DELETED", "a", lease(1, 0))
    assert renewals.matters("ADDED", "a", lease(1, 1)), "forgotten"
