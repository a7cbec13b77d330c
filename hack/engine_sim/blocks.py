"""The KV cache as far as it shows: whole blocks of 16 tokens found again by prefix, and how full it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16
CAPACITY_BLOCKS = 65_536  # 1,048,576 tokens


class PrefixCache:
    """Remembers blocks by the hash of all tokens up to their end and of the request's `cache_salt`."""

    def __init__(self, capacity_blocks: int = CAPACITY_BLOCKS):
        self._capacity = capacity_blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def match(self, tokens: Sequence[int], salt: str | None) -> int:
        """Return how many leading tokens of a prompt are cached; the last token is always computed anew."""
        found = 0
        for block in _chain(tokens[: len(tokens) - 1], salt):
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            found += BLOCK_TOKENS
        return found

    def insert(self, tokens: Sequence[int], salt: str | None) -> None:
        """Remember all full blocks of a sequence, forgetting the longest unused ones when there is no room."""
        for block in _chain(tokens, salt):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()


def _chain(tokens: Sequence[int], salt: str | None) -> list[int]:
    hashes, parent = [], hash(salt)
    for at in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        parent = hash((parent, tuple(tokens[at : at + BLOCK_TOKENS])))
        hashes.append(parent)
    return hashes


def blocks_for(tokens: int) -> int:
    """Return how many blocks a sequence of this length takes."""
    return -(-tokens // BLOCK_TOKENS)
