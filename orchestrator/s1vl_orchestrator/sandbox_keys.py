"""A sandbox's API keys: the one that its Secret has, and those that it had before."""

from __future__ import annotations

from collections.abc import Callable, Sequence

KNOWN_KEYS = 3


class SandboxKeys:
    """While a key is replaced, pods that started with the old one and pods with the new one are there side by side.

    Args:
        doubt: Has the Secret read again soon: a pod refuses every key that is known.
    """

    def __init__(self, doubt: Callable[[], None]) -> None:
        self.doubt = doubt
        self._keys: tuple[str, ...] = ()

    def learn(self, key: str | None) -> bool:
        """Take what the Secret has now, None for nothing; returns whether that is news."""
        if key is None or key in self._keys[:1]:
            return False
        self._keys = (key, *(old for old in self._keys if old != key))[:KNOWN_KEYS]
        return True

    def to_try(self, proven: str | None) -> Sequence[str | None]:
        """The keys for a pod, in the order in which they are to be tried, given the one that it took last.

        None stands for none at all: a sandbox for which there was never a key asks for none.
        """
        if not self._keys:
            return (None,)
        return sorted(self._keys, key=lambda key: key != proven)
