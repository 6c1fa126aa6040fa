"""The KV blocks: which are referenced, and which unreferenced ones can still be found by their content.

A block is free, referenced (by one block table or more), or evictable: unreferenced, but with a content hash under
which it can be found again until it is allocated for something else.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tdpipe.core.step import IntArray


class BlockPool:
    """Reference-counted blocks with the numbers from 0 to `blocks` - 1.

    Args:
        blocks: number of blocks.
        block_size: number of tokens in a block.
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
        """Number of blocks that can be allocated: free and evictable ones."""
        return self._free_count + len(self._evictable)

    @property
    def used(self) -> int:
        """Number of blocks that are referenced."""
        return self.blocks - self.available

    def blocks_for(self, tokens: int) -> int:
        """Return the number of blocks that hold `tokens` tokens."""
        return -(-tokens // self.block_size)

    def allocate(self, count: int) -> IntArray:
        """Return `count` blocks with one reference each.

        Free blocks are taken first, then evictable ones, of which the least recently released goes first.

        Raises:
            ValueError: fewer blocks are available.
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
        """Add a reference to a block that was found by its content."""
        self._evictable.pop(block, None)
        self.references[block] += 1

    def release(self, blocks: IntArray) -> None:
        """Drop one reference of each block; no block may occur twice."""
        self.references[blocks] -= 1
        unreferenced = blocks[self.references[blocks] == 0]
        if self._hash_of:
            hashed = [int(block) for block in unreferenced if int(block) in self._hash_of]
            self._evictable.update(dict.fromkeys(hashed))
            plain = [b for b in unreferenced if int(b) not in self._hash_of]
            unreferenced = np.array(plain, dtype=np.int32)
        self._push(unreferenced)

    def label(self, block: int, content: int) -> None:
        """Register a full, referenced block under its content hash; of equal contents the first block is kept."""
        if content not in self._block_of and block not in self._hash_of:
            self._block_of[content] = block
            self._hash_of[block] = content

    def find(self, content: int) -> int | None:
        """Return the block with that content hash, if there still is one."""
        return self._block_of.get(content)

    def _push(self, blocks: IntArray) -> None:
        self._free[self._free_count : self._free_count + len(blocks)] = blocks
        self._free_count += len(blocks)
