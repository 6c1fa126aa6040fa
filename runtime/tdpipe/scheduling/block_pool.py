"""KV blocks: who holds them, and which free ones still hold something worth finding.

A block is free, referenced (by one table or more), or evictable: unreferenced but with a content hash under which
it can be found again until its room is needed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray


class BlockPool:
    """Reference-counted blocks `0..blocks-1`.

    Args:
        blocks: how many there are.
        block_size: tokens in each.
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        self.blocks = blocks
        self.block_size = block_size
        self.references = np.zeros(blocks, dtype=np.int32)
        self._free = np.arange(blocks - 1, -1, -1, dtype=np.int32)
        self._free_count = blocks
        self._hash_of: dict[int, int] = {}
        self._block_of: dict[int, int] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that `allocate` can give: free and evictable ones."""
        return self._free_count + len(self._evictable)

    @property
    def used(self) -> int:
        """Blocks that are referenced."""
        return self.blocks - self.available

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens."""
        return -(-tokens // self.block_size)

    def allocate(self, count: int) -> IntArray:
        """`count` blocks with one reference each; evicts the least recently released hashed ones last.

        Raises:
            ValueError: fewer are available.
        """
        if count > self.available:
            raise ValueError(f"{count} blocks wanted, {self.available} available")
        while self._free_count < count:
            block, _ = self._evictable.popitem(last=False)
            del self._block_of[self._hash_of.pop(block)]
            self._push(np.array([block], dtype=np.int32))
        self._free_count -= count
        taken = self._free[self._free_count : self._free_count + count].copy()
        self.references[taken] = 1
        return taken

    def share(self, block: int) -> None:
        """Add a reference to a block found by its hash."""
        self._evictable.pop(block, None)
        self.references[block] += 1

    def release(self, blocks: IntArray) -> None:
        """Drop one reference of each; `blocks` names none twice."""
        self.references[blocks] -= 1
        idle = blocks[self.references[blocks] == 0]
        if self._hash_of:
            hashed = [int(block) for block in idle if int(block) in self._hash_of]
            self._evictable.update(dict.fromkeys(hashed))
            idle = np.array([b for b in idle if int(b) not in self._hash_of], dtype=np.int32)
        self._push(idle)

    def label(self, block: int, content: int) -> None:
        """Make a full, referenced block findable by its content's hash; the first of equal content stays."""
        if content not in self._block_of and block not in self._hash_of:
            self._block_of[content] = block
            self._hash_of[block] = content

    def find(self, content: int) -> int | None:
        """The block of that content, if it is still there."""
        return self._block_of.get(content)

    def _push(self, blocks: IntArray) -> None:
        self._free[self._free_count : self._free_count + len(blocks)] = blocks
        self._free_count += len(blocks)
