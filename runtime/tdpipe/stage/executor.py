"""Everything that a stage does with a step; no transport, no threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StepOutput, TokenFeedback
from tdpipe.stage.batch import build_batch, sampled_tokens
from tdpipe.stage.sampling import Sampler
from tdpipe.stage.slots import SlotTable, TokenTable

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.core.step import Step
    from tdpipe.model.kv_cache import KVCache
    from tdpipe.model.stage_model import StageModel


class StageExecutor:
    """One stage's state and computations. Steps must come in the order of issue.

    Args:
        model: the stage's layers.
        kv: their cache.
        slots: sequences that may hold KV at once.
        max_context: tokens of a sequence at most.
        first: the stage embeds tokens.
        last: the stage samples.
    """

    def __init__(
        self,
        model: StageModel,
        kv: KVCache,
        *,
        slots: int,
        max_context: int,
        first: bool,
        last: bool,
    ) -> None:
        self._model = model
        self._kv = kv
        self._first = first
        self._slots = SlotTable(
            slots=slots, max_context=max_context, blocks=kv.blocks, block_size=kv.block_size
        )
        self._tokens = (
            TokenTable(slots=slots, max_context=max_context, vocab_size=model.vocab_size)
            if first or last
            else None
        )
        self._sampler = Sampler(slots) if last else None

    def apply(self, step: Step) -> None:
        """Take over the step's starts and new blocks.

        Raises:
            PipelineError: the step is impossible.
        """
        self._slots.apply(step)
        if self._tokens is not None:
            self._tokens.apply(step)
        if self._sampler is not None:
            for start in step.starts:
                self._sampler.start(start.slot, start.sampling)

    def wants_tokens(self, step: Step) -> bool:
        """First stage: whether a row needs a token that has not come back yet."""
        assert self._tokens is not None
        return self._tokens.lacks(step)

    def learn(self, feedback: TokenFeedback) -> None:
        """First stage: store sampled tokens, but for slots that have a new tenant since."""
        assert self._tokens is not None
        current = self._slots.sequences[feedback.slots] == feedback.sequences
        self._tokens.extend(
            feedback.slots[current], feedback.positions[current], feedback.tokens[current]
        )

    @torch.inference_mode()
    def forward(self, step: Step, hidden: Tensor | None) -> Tensor:
        """Run the stage's layers over the step's T tokens.

        Args:
            step: already applied.
            hidden: [T, hidden_size] from the stage before; None on the first.

        Returns:
            [T, hidden_size].

        Raises:
            PipelineError: the step is impossible.
        """
        self._slots.check_rows(step)
        if self._first and self.wants_tokens(step):
            raise PipelineError(f"step {step.id} computes tokens that have not been sampled")
        batch = build_batch(
            step, self._slots, self._tokens if self._first else None, self._model.device
        )
        output = self._model.body(
            batch.layout, self._kv, batch.positions, token_ids=batch.token_ids, hidden=hidden
        )
        self._slots.advance(step)
        return output

    def synchronise(self) -> None:
        """Wait until what was begun is computed."""
        # Kernels run behind the host's clock; only what they took counts as busy, not what queued up
        # before. Waiting for the whole device would count activations that wait on another stream for
        # the next stage to take them.
        if self._model.device.type == "cuda":
            torch.cuda.current_stream(self._model.device).synchronize()

    def busy(self, measured: float) -> float:
        """As the loop measured it."""
        return measured

    @torch.inference_mode()
    def sample(self, step: Step, hidden: Tensor) -> tuple[StepOutput, TokenFeedback]:
        """Last stage: draw a token after each row whose `sample` is set.

        Args:
            step: already applied.
            hidden: [T, hidden_size] of this stage's layers.
        """
        assert self._sampler is not None
        assert self._tokens is not None
        slots = step.slots[step.sample]
        positions = (step.first + step.counts)[step.sample]
        if len(slots):
            rows = torch.from_numpy(sampled_tokens(step)).to(hidden.device)
            logits = self._model.head(hidden[rows])
            tokens, logprobs = self._sampler.sample(logits, slots, positions, self._tokens)
        else:
            tokens, logprobs = positions, ()
        self._tokens.extend(slots, positions, tokens)
        feedback = TokenFeedback(step.id, slots, self._slots.sequences[slots], positions, tokens)
        return StepOutput(step.id, tokens, logprobs), feedback
