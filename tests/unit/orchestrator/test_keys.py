"""Which keys there are, and in which order a sandbox is offered them."""

from __future__ import annotations

import pytest

from s1vl_orchestrator.admission import keys_of
from s1vl_orchestrator.sandbox_keys import SandboxKeys


@pytest.mark.parametrize(
    ("secret", "keys"),
    [
        (None, []),
        (b"", []),
        (b"\n \r\n", []),
        (b"one", [b"one"]),
        (b"one\n", [b"one"]),
        (b"one\r\ntwo\n\n  three  ", [b"one", b"two", b"three"]),
    ],
)
def test_keys_of_a_secret(secret: bytes | None, keys: list[bytes]) -> None:
    assert keys_of(secret) == keys


def test_a_sandbox_without_a_key_is_offered_none() -> None:
    keys = SandboxKeys(lambda: None)
    assert list(keys.to_try(None)) == [None]
    assert not keys.learn(None)


def test_the_proven_key_is_tried_first_and_then_the_newest() -> None:
    keys = SandboxKeys(lambda: None)
    assert [keys.learn(key) for key in ("a", "a", None, "b", "c", "d")] == [True, False, False, True, True, True]
    assert list(keys.to_try(None)) == ["d", "c", "b"]
    assert list(keys.to_try("b")) == ["b", "d", "c"]
    # One that comes back is the newest.
    assert keys.learn("b")
    assert list(keys.to_try("d")) == ["d", "b", "c"]
