"""The messages between controller and stages.

A step is a delta: it names the rows to compute and what changed since the last one (sequences started, blocks
added), because stages keep block tables and token ids themselves. Rows are arrays, so that a thousand of them
cost no more Python than one. Stages execute steps in the order in which they are issued, which makes slots and blocks
safe to reuse as soon as the controller has released them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tdpipe.core.attempt import Attempt
from tdpipe.core.sampling import SamplingParams, TokenLogprobs

IntArray = np.ndarray[tuple[int], np.dtype[np.int32]]
BoolArray = np.ndarray[tuple[int], np.dtype[np.bool_]]
FloatArray = np.ndarray[tuple[int], np.dtype[np.float64]]


NO_TOKEN = -1
"""Placeholder in a step's output for a token that could not be sampled, because the row's logits are not finite."""


class Phase(StrEnum):
    """Kind of work in a step. It is a label for people and metrics; stages do not act on it."""

    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class SequenceStart:
    """A sequence that takes a slot; stages forget what the slot held before.

    It is sent when the sequence is first admitted, and again when it resumes after a preemption, then with the tokens
    that were generated, from which the last stage rebuilds penalties.
    """

    slot: int
    sequence: int
    """Number of the sequence, which is never used again. It identifies late tokens of the slot's earlier sequence."""
    tokens: IntArray
    """Prompt and generated token ids."""
    prompt_length: int
    """Number of `tokens` that are the prompt."""
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Step:
    """One micro-batch: rows of (slot, first position, count, sample?), ragged and unpadded."""

    id: int
    """Number of the step, ascending from 0 without gaps within an attempt."""
    phase: Phase
    starts: tuple[SequenceStart, ...]
    """Sequences that take a slot before the rows are computed."""
    slots: IntArray
    """[R] slot of each row's sequence; a slot has at most one row in a step."""
    first: IntArray
    """[R] position of the row's first token in its sequence."""
    counts: IntArray
    """[R] number of tokens of the row, at least 1."""
    sample: BoolArray
    """[R] whether a token is sampled after the row's last position."""
    block_slots: IntArray
    """[N] slot that each new block is appended to."""
    blocks: IntArray
    """[N] new blocks, in the order of each slot's block table."""

    @property
    def tokens(self) -> int:
        """Number of batch tokens over all rows."""
        return int(self.counts.sum())


@dataclass(frozen=True, slots=True)
class TokenFeedback:
    """Sampled tokens, which the last stage sends directly to stage 0."""

    step: int
    slots: IntArray
    sequences: IntArray
    positions: IntArray
    """[K] position that each token takes in its sequence."""
    tokens: IntArray


@dataclass(frozen=True, slots=True)
class StepOutput:
    """Tokens that the last stage sampled in a step: one for each row whose `sample` is set, in row order."""

    step: int
    tokens: IntArray
    logprobs: tuple[TokenLogprobs | None, ...] = ()
    """Empty if no row asked for any, else one entry per token."""


@dataclass(frozen=True, slots=True)
class StageReport:
    """Report of a stage that has executed a step."""

    attempt: Attempt
    step: int
    stage: int
    busy: float
    """Seconds of computing, without waiting for messages, activations or tokens."""
    output: StepOutput | None = None
    """Sampled tokens; only the last stage reports them."""
