"""Prompt blocks that a rank keeps for later prompts which begin alike: least recently used are dropped.

A block's id stands for the whole prompt up to its end (as chained hashes and radix trees have it), so a prompt finds its
leading blocks as far as all of them are kept.
"""

from __future__ import annotations

from collections.abc import Sequence


class PrefixCache:
    """Blocks of one rank, the one least recently used first."""

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self.kept: dict[int, None] = {}

    def find(self, blocks: Sequence[int]) -> int:
        """Count the leading blocks of a prompt that are kept."""
        for place, block in enumerate(blocks):
            if block not in self.kept:
                return place
        return len(blocks)

    def keep(self, blocks: Sequence[int]) -> None:
        """Use and keep the blocks of a prompt; the first of them are dropped last."""
        for block in reversed(blocks[: self.capacity_blocks]):
            self.kept.pop(block, None)
            self.kept[block] = None
        while len(self.kept) > self.capacity_blocks:
            del self.kept[next(iter(self.kept))]
