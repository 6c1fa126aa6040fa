"""Stages without threads and transport, run one at a time in any order in which a pipeline could run them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tdpipe.core.capacity import Capacity
from tdpipe.model.attention import make_backend
from tdpipe.model.description import describe_model
from tdpipe.model.kv_cache import KVCache
from tdpipe.model.loader import load_stage
from tdpipe.model.partition import balance_layers
from tdpipe.stage.executor import StageExecutor

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from tdpipe.core.step import Step, StepOutput, TokenFeedback

CPU = torch.device("cpu")
CAPACITY = Capacity(blocks=40, block_size=4, slots=6, max_context=80)
"""Capacity that is small enough for slots and blocks to be reused often."""


def make_executors(
    path: Path,
    stages: int,
    attention: str = "sdpa",
    *,
    dtype: torch.dtype = torch.float32,
) -> list[StageExecutor]:
    """Load the stages of a checkpoint on the CPU, each with a KV cache of `CAPACITY`."""
    description = describe_model(path)
    executors, start = [], 0
    for stage, count in enumerate(balance_layers(description.sizes, stages)):
        layers = range(start, start + count)
        start += count
        first, last = stage == 0, stage == stages - 1
        backend = make_backend(attention, CPU)
        model = load_stage(
            description, layers, first=first, last=last, dtype=dtype, device=CPU, attention=backend
        )
        kv = KVCache(
            description.sizes,
            layers,
            blocks=CAPACITY.blocks,
            block_size=CAPACITY.block_size,
            dtype=dtype,
            device=CPU,
        )
        executors.append(
            StageExecutor(
                model,
                kv,
                slots=CAPACITY.slots,
                max_context=CAPACITY.max_context,
                first=first,
                last=last,
            )
        )
    return executors


@dataclass
class StageChain:
    """A chain of stages of which a random one that has its inputs runs at a time."""

    executors: list[StageExecutor]
    random: Random
    _steps: list[deque[Step]] = field(init=False)
    _hidden: list[deque[torch.Tensor | None]] = field(init=False)
    _feedback: deque[TokenFeedback] = field(init=False, default_factory=deque)
    _applied: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._steps = [deque() for _ in self.executors]
        self._hidden = [deque() for _ in self.executors]

    def submit(self, step: Step) -> None:
        for steps in self._steps:
            steps.append(step)
        self._hidden[0].append(None)

    @property
    def unfinished(self) -> int:
        """Number of steps that the last stage has not sampled."""
        return len(self._steps[-1])

    def run_one(self) -> StepOutput | None:
        """Run a stage's next step and return the output if it is the last stage."""
        ready = [stage for stage in range(len(self.executors)) if self._is_ready(stage)]
        stage = self.random.choice(ready)
        executor = self.executors[stage]
        step, hidden = self._steps[stage].popleft(), self._hidden[stage].popleft()
        if stage == 0:
            self._applied = False
        else:
            executor.apply(step)
        output = executor.forward(step, hidden)
        if stage + 1 < len(self.executors):
            self._hidden[stage + 1].append(output)
            return None
        sampled, feedback = executor.sample(step, output)
        self._feedback.append(feedback)
        return sampled

    def _is_ready(self, stage: int) -> bool:
        if not self._hidden[stage]:
            return False
        if stage:
            return True
        executor, step = self.executors[0], self._steps[0][0]
        if not self._applied:
            executor.apply(step)
            self._applied = True
        while self._feedback and (executor.lacks_tokens(step) or self.random.random() < 0.5):
            executor.store_tokens(self._feedback.popleft())
        return not executor.lacks_tokens(step)
