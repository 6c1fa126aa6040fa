from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tdpipe.scheduling.block_pool import BlockPool


def test_allocating_more_than_there_is_is_refused() -> None:
    pool = BlockPool(3, 16)
    pool.allocate(2)
    with pytest.raises(ValueError, match="2 blocks wanted, 1 available"):
        pool.allocate(2)


def test_a_labelled_block_is_found_after_its_release_until_its_room_is_needed() -> None:
    pool = BlockPool(2, 16)
    (block,) = pool.allocate(1).tolist()
    pool.label(block, 77)
    pool.release(np.array([block], dtype=np.int32))
    assert pool.find(77) == block
    pool.allocate(1)
    assert pool.find(77) == block
    pool.allocate(1)
    assert pool.find(77) is None


def test_a_shared_block_is_free_only_when_nobody_holds_it() -> None:
    pool = BlockPool(1, 16)
    blocks = pool.allocate(1)
    pool.share(int(blocks[0]))
    pool.release(blocks)
    assert pool.used == 1
    pool.release(blocks)
    assert pool.used == 0


def test_the_least_recently_released_content_goes_first() -> None:
    pool = BlockPool(2, 16)
    first, second = pool.allocate(2).tolist()
    pool.label(first, 1)
    pool.label(second, 2)
    pool.release(np.array([second], dtype=np.int32))
    pool.release(np.array([first], dtype=np.int32))
    pool.allocate(1)
    assert pool.find(2) is None
    assert pool.find(1) == first


class PoolMachine(RuleBasedStateMachine):
    """Against a model: block → holders, content → block."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(8, 4)
        self.held: list[int] = []
        self.content: dict[int, int] = {}

    @rule(count=st.integers(0, 8))
    def allocate(self, count: int) -> None:
        if count <= self.pool.available:
            blocks = self.pool.allocate(count).tolist()
            assert not set(blocks) & set(self.held)
            self.held += blocks
            self.content = {c: b for c, b in self.content.items() if b not in blocks}

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.held:
            block = data.draw(st.sampled_from(self.held))
            self.held.remove(block)
            self.pool.release(np.array([block], dtype=np.int32))

    @rule(data=st.data(), content=st.integers(0, 5))
    def label(self, data: st.DataObject, content: int) -> None:
        if self.held:
            block = data.draw(st.sampled_from(self.held))
            self.pool.label(block, content)
            if content not in self.content and block not in self.content.values():
                self.content[content] = block

    @rule(content=st.integers(0, 5))
    def share(self, content: int) -> None:
        block = self.pool.find(content)
        assert block == self.content.get(content)
        if block is not None:
            self.pool.share(block)
            self.held.append(block)

    @invariant()
    def references_equal_holders(self) -> None:
        counts = np.bincount(np.array(self.held, dtype=np.int64), minlength=8)
        assert np.array_equal(counts, self.pool.references)
        assert self.pool.used == len(set(self.held))


TestPool: Any = PoolMachine.TestCase
TestPool.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
