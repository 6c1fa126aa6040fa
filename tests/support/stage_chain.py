"""Stages driven by hand: no threads and no transport, but every order in which a pipeline could run."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

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


@dataclass(frozen=True, slots=True)
class Room:
    """What a pipeline has room for."""

    slots: int = 6
    blocks: int = 40
    block_size: int = 4
    max_context: int = 80


def make_executors(
    path: Path,
    stages: int,
    attention: str = "sdpa",
    *,
    room: Room | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[StageExecutor]:
    """The stages of a checkpoint on the CPU."""
    room = room or Room()
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
            blocks=room.blocks,
            block_size=room.block_size,
            dtype=dtype,
            device=CPU,
        )
        executors.append(
            StageExecutor(
                model,
                kv,
                slots=room.slots,
                max_context=room.max_context,
                first=first,
                last=last,
            )
        )
    return executors


@dataclass
class StageChain:
    """Runs one stage at a time, a random one of those that have all they need."""

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
        """Steps that the last stage has not sampled."""
        return len(self._steps[-1])

    def run_one(self) -> StepOutput | None:
        """Let a stage execute its next step; the output if it is the last stage."""
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
        while self._feedback and (executor.wants_tokens(step) or self.random.random() < 0.5):
            executor.learn(self._feedback.popleft())
        return not executor.wants_tokens(step)
