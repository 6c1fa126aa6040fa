"""Stages without a model: every output token is a checksum of all tokens before it.

A wrong order, a lost activation, a token that is read before it came back and a late token of a slot's earlier sequence
all change the tokens or raise at once.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tdpipe.core.capacity import Capacity
from tdpipe.core.step import StepOutput, TokenFeedback

if TYPE_CHECKING:
    from tdpipe.core.step import Step

VOCABULARY = 50_000
HIDDEN_SIZE = 6


def checksum_token(tokens: list[int]) -> int:
    """Return the token that follows `tokens`."""
    return zlib.crc32(np.asarray(tokens, dtype="<i4").tobytes()) % VOCABULARY


def continuation(prompt: list[int], count: int) -> list[int]:
    """Return the first `count` output tokens of a prompt."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(checksum_token(tokens))
    return tokens[len(prompt) :]


class FakeExecutor:
    """A stage's executor whose activations are (token, position, number of stages passed).

    The last stage checks them and keeps the tokens as its KV.
    """

    def __init__(self, builder: FakeStages, stage: int) -> None:
        self._builder = builder
        self._stage = stage
        self._sequences: dict[int, int] = {}
        self._tokens: dict[int, list[int]] = {}
        self._kv: dict[int, list[int]] = {}
        self._started = 0.0

    def apply(self, step: Step) -> None:
        for start in step.starts:
            self._sequences[start.slot] = start.sequence
            self._tokens[start.slot] = start.tokens.tolist()
            self._kv[start.slot] = []

    def lacks_tokens(self, step: Step) -> bool:
        return any(first + count > len(self._tokens[slot]) for slot, first, count in _rows(step))

    def store_tokens(self, feedback: TokenFeedback) -> None:
        for slot, sequence, position, token in zip(
            feedback.slots.tolist(),
            feedback.sequences.tolist(),
            feedback.positions.tolist(),
            feedback.tokens.tolist(),
            strict=True,
        ):
            if self._sequences.get(slot) == sequence and position == len(self._tokens[slot]):
                self._tokens[slot].append(token)

    def forward(self, step: Step, hidden: torch.Tensor | None) -> torch.Tensor:
        self._started = time.perf_counter()
        time.sleep(self._builder.step_seconds)
        if self._builder.fails == (self._stage, step.id):
            raise ArithmeticError(f"step {step.id} does not add up")
        if self._builder.kills_itself == (self._stage, step.id):
            os.kill(os.getpid(), signal.SIGKILL)
        if hidden is not None:
            return hidden + torch.tensor([0, 0, 1] + [0] * (HIDDEN_SIZE - 3))
        rows = [
            [float(token), float(first + offset), 1.0] + [0.0] * (HIDDEN_SIZE - 3)
            for slot, first, count in _rows(step)
            for offset, token in enumerate(self._row_tokens(slot, first, count))
        ]
        return torch.tensor(rows)

    def synchronise(self) -> float:
        return time.perf_counter() - self._started

    def sample(self, step: Step, hidden: torch.Tensor) -> tuple[StepOutput, TokenFeedback]:
        offset = 0
        sampled = []
        for row, (slot, first, count) in enumerate(_rows(step)):
            kv = self._kv[slot]
            del kv[first:]
            for token, position, passed in hidden[offset : offset + count, :3].tolist():
                if (position, passed) != (len(kv), self._builder.stages):
                    raise AssertionError(f"activation of {position=} {passed=} at {len(kv)}")
                kv.append(int(token))
            offset += count
            if step.sample[row]:
                sampled.append((slot, self._sequences[slot], first + count, checksum_token(kv)))
        columns = np.asarray(sampled, dtype=np.int32).reshape(-1, 4).T.copy()
        return StepOutput(step.id, columns[3]), TokenFeedback(step.id, *columns)

    def _row_tokens(self, slot: int, first: int, count: int) -> list[int]:
        tokens = self._tokens[slot][first : first + count]
        if len(tokens) < count:
            raise AssertionError(f"slot {slot} has no token at {first + len(tokens)} yet")
        return tokens


def _rows(step: Step) -> list[tuple[int, int, int]]:
    return list(zip(step.slots.tolist(), step.first.tolist(), step.counts.tolist(), strict=True))


@dataclass(frozen=True)
class FakeStages:
    """A `StageBuilder` of stages without a model, with the failures that a test needs."""

    stages: int
    blocks: tuple[int, ...] = (64,)
    """Number of blocks that fit on each stage; one value is for all stages."""
    step_seconds: float = 0.0
    fails: tuple[int, int] | None = None
    """(stage, step) of the step that raises an exception."""
    kills_itself: tuple[int, int] | None = None
    """(stage, step) of the step in which the stage kills its process."""
    fails_to_load: int | None = None
    """Stage that has no memory for its weights."""

    def load(self, stage: int, device: torch.device, sharing: int) -> FakeLoadedStage:
        assert sharing == self.stages
        if stage == self.fails_to_load:
            raise MemoryError("no room for the weights")
        return FakeLoadedStage(self, stage, device)

    def capacity(self, blocks: int) -> Capacity:
        return Capacity(blocks=blocks, block_size=16, slots=8, max_context=256)


class FakeLoadedStage:
    hidden_size = HIDDEN_SIZE
    dtype = torch.float32

    def __init__(self, builder: FakeStages, stage: int, device: torch.device) -> None:
        self._builder = builder
        self._stage = stage
        self.device = device
        self.name = f"fake layer {stage}"

    def fitting_blocks(self) -> int:
        return self._builder.blocks[self._stage % len(self._builder.blocks)]

    def executor(self, blocks: int) -> FakeExecutor:
        assert blocks == min(self._builder.blocks)
        return FakeExecutor(self._builder, self._stage)
