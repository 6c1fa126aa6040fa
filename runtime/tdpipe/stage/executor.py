"""What a stage computes for a step, without transport and without threads.

Because it needs neither, tests can run stages by hand in any order, and one loop serves the Ray actor and the thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
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
    """The state and the computations of one stage. Steps must come in the order of issue.

    Args:
        model: the stage's layers.
        kv: the KV cache of these layers.
        slots: number of sequences that may hold KV at once.
        max_context: maximum number of tokens in a sequence.
        first: whether the stage embeds tokens.
        last: whether the stage samples.
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
        self._sampler = Sampler(slots, model.device) if last else None
        self._apply_seconds = self._forward_started = 0.0

    def apply(self, step: Step) -> None:
        """Store the step's new sequences and blocks.

        Raises:
            PipelineError: the step is impossible.
        """
        started = time.perf_counter()
        self._slots.apply(step)
        if self._tokens is not None:
            self._tokens.apply(step)
        if self._sampler is not None:
            for start in step.starts:
                self._sampler.start(start.slot, start.sampling)
        self._apply_seconds = time.perf_counter() - started

    def lacks_tokens(self, step: Step) -> bool:
        """Return whether a row needs a sampled token that has not come back yet. Only the first stage is asked."""
        assert self._tokens is not None
        return self._tokens.lacks_tokens(step)

    def store_tokens(self, feedback: TokenFeedback) -> None:
        """Store sampled tokens on the first stage, except those of sequences that have left their slot."""
        assert self._tokens is not None
        current = self._slots.sequences[feedback.slots] == feedback.sequences
        self._tokens.extend(
            feedback.slots[current], feedback.positions[current], feedback.tokens[current]
        )

    @torch.inference_mode()
    def forward(self, step: Step, hidden: Tensor | None) -> Tensor:
        """Run the stage's layers over the step's T tokens. A GPU may still compute when this returns.

        Args:
            step: a step that has been applied.
            hidden: [T, hidden_size] from the previous stage, in the model's dtype; None on the first stage.

        Returns:
            [T, hidden_size] in the model's dtype.

        Raises:
            PipelineError: the step is impossible.
        """
        if hidden is not None:
            # Activations may still be arriving, and waiting for them is not computing.
            self._wait()
        self._forward_started = time.perf_counter()
        self._slots.check_rows(step)
        if self._first and self.lacks_tokens(step):
            raise PipelineError(f"step {step.id} computes tokens that have not been sampled")
        batch = build_batch(
            step, self._slots, self._tokens if self._first else None, self._model.device
        )
        output = self._model.body(
            batch.layout, self._kv, batch.positions, token_ids=batch.token_ids, hidden=hidden
        )
        self._slots.advance(step)
        return output

    def synchronise(self) -> float:
        """Wait until the step is computed.

        Returns:
            Seconds of computing that the step has taken on this stage.
        """
        self._wait()
        return self._apply_seconds + time.perf_counter() - self._forward_started

    def _wait(self) -> None:
        # Waiting for the whole device would count activations that wait on another stream until the
        # next stage takes them.
        if self._model.device.type == "cuda":
            torch.cuda.current_stream(self._model.device).synchronize()

    @torch.inference_mode()
    def sample(self, step: Step, hidden: Tensor) -> tuple[StepOutput, TokenFeedback]:
        """Draw a token after each row whose `sample` is set. Only the last stage samples.

        Args:
            step: a step that has been applied.
            hidden: [T, hidden_size] output of this stage's layers.

        Returns:
            The output for the controller and the feedback for the first stage.
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
        # A step may embed the token of a row that could not be sampled before the controller ends the request, so it
        # must be in the vocabulary.
        embeddable = np.maximum(tokens, 0)
        self._tokens.extend(slots, positions, embeddable)
        feedback = TokenFeedback(
            step.id, slots, self._slots.sequences[slots], positions, embeddable
        )
        return StepOutput(step.id, tokens, logprobs), feedback
