"""The sampler, which turns logits into tokens and their log-probabilities.

The order is that of vLLM: bias, penalties, temperature, filters (top-k, top-p, min-p, as in transformers), draw. Rows
that need none of these cost one argmax. Log-probabilities are those of the model's own distribution, before all of
these, as vLLM returns them by default (`raw_logprobs`), because a client that scores text asks what the model predicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tdpipe.core.sampling import TokenLogprobs
from tdpipe.core.step import NO_TOKEN
from tdpipe.stage.sampling.draw import draw_tokens, uniform_numbers
from tdpipe.stage.sampling.filters import (
    drop_below,
    min_p_threshold,
    top_k_threshold,
    top_p_threshold,
)
from tdpipe.stage.sampling.parameters import NO_LOGPROBS, ParameterTable
from tdpipe.stage.sampling.penalties import Penalties, TokenCounts, apply_penalties

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

    from tdpipe.core.sampling import SamplingParams
    from tdpipe.core.step import IntArray
    from tdpipe.stage.slots import TokenTable

_FILTERS = (
    ("top_k", 0, top_k_threshold),
    ("top_p", 1, top_p_threshold),
    ("min_p", 0, min_p_threshold),
)
"""Name of each filter's parameter, its value that keeps every token, and the function that gives the threshold."""


class Sampler:
    """Draws the next token of each slot's sequence.

    Everything that depends only on the request is prepared when it starts, instead of at each of its tokens.

    Args:
        slots: number of slots.
        device: device of the logits.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self._parameters = ParameterTable(slots)
        self._device = device
        self._biases: dict[int, tuple[Tensor, Tensor]] = {}
        """Token ids and the biases of their logits, by slot."""
        self._counts: dict[int, TokenCounts] = {}
        """Counts of the tokens that are penalised, by slot."""

    def start(self, slot: int, params: SamplingParams) -> None:
        """Store the sampling parameters of a slot's new request."""
        self._parameters.store(slot, params)
        if self._parameters.biased[slot]:
            tokens, biases = zip(*params.logit_bias, strict=True)
            self._biases[slot] = (
                torch.tensor(tokens, device=self._device),
                torch.tensor(biases, device=self._device),
            )
        if self._parameters.penalised[slot]:
            self._counts[slot] = TokenCounts()

    def sample(
        self, logits: Tensor, slots: IntArray, positions: IntArray, history: TokenTable
    ) -> tuple[IntArray, tuple[TokenLogprobs | None, ...]]:
        """Draw one token per row.

        Args:
            logits: [K, V] float32, overwritten.
            slots: [K] slot of each row.
            positions: [K] position that each token will have in its sequence.
            history: token ids of the slots' sequences up to these positions.

        Returns:
            [K] int32 tokens, `NO_TOKEN` for rows whose logits are not finite, and the log-probabilities of the rows
            whose requests ask for them: one entry per row, or an empty tuple if no request does.
        """
        parameters = self._parameters
        scored = (parameters.logprobs[slots] != NO_LOGPROBS).nonzero()[0]
        raw = logits[_index(scored, logits)].log_softmax(-1) if len(scored) else None

        self._bias(logits, slots)
        self._penalise(logits, slots, positions, history)
        chosen = logits.argmax(-1)
        # The largest logit is NaN if any is, infinite if any is, and minus infinity if all are.
        finite = logits.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).isfinite()
        drawn = (parameters.temperature[slots] > 0).nonzero()[0]
        if len(drawn):
            rows = _index(drawn, logits)
            chosen[rows] = self._draw(logits[rows], slots[drawn], positions[drawn])

        tokens = chosen.where(finite, NO_TOKEN).to(torch.int32).cpu().numpy()
        if raw is None:
            return tokens, ()
        found: list[TokenLogprobs | None] = [None] * len(slots)
        tops = parameters.logprobs[slots[scored]].tolist()
        scores = _token_logprobs(raw, chosen[_index(scored, logits)], tops)
        for row, logprobs in zip(scored.tolist(), scores, strict=True):
            if tokens[row] != NO_TOKEN:
                found[row] = logprobs
        return tokens, tuple(found)

    def _bias(self, logits: Tensor, slots: IntArray) -> None:
        for row in self._parameters.biased[slots].nonzero()[0].tolist():
            logits[row].index_add_(0, *self._biases[int(slots[row])])

    def _penalise(
        self, logits: Tensor, slots: IntArray, positions: IntArray, history: TokenTable
    ) -> None:
        parameters = self._parameters
        rows = parameters.penalised[slots].nonzero()[0]
        if not len(rows):
            return
        slots = slots[rows]
        counts = [self._counts[slot] for slot in slots.tolist()]
        for count, slot, end in zip(counts, slots.tolist(), positions[rows].tolist(), strict=True):
            count.update(history.tokens[slot, :end], int(history.prompt_lengths[slot]))
        apply_penalties(
            logits,
            rows.tolist(),
            counts,
            Penalties(
                parameters.repetition_penalty[slots],
                parameters.presence_penalty[slots],
                parameters.frequency_penalty[slots],
            ),
        )

    def _draw(self, logits: Tensor, slots: IntArray, positions: IntArray) -> Tensor:
        parameters = self._parameters
        # With the largest logit at 0, a temperature near 0 sends the others to -inf. Otherwise it would
        # send all positive ones to inf.
        logits = logits - logits.amax(-1, keepdim=True)
        temperature = torch.from_numpy(parameters.temperature[slots]).to(logits)
        logits /= temperature.clamp_(min=torch.finfo(logits.dtype).tiny).unsqueeze(-1)
        for name, off, threshold in _FILTERS:
            values = getattr(parameters, name)[slots]
            on = (values != off).nonzero()[0]
            if len(on):
                rows = _index(on, logits)
                part = logits[rows]
                bounds = torch.from_numpy(values[on]).to(logits.device)
                logits[rows] = drop_below(part, threshold(part, bounds))
        numbers = uniform_numbers(parameters.seed[slots], positions)
        return draw_tokens(logits, torch.from_numpy(numbers).to(logits.device))


def _index(rows: np.ndarray[Any, np.dtype[np.intp]], like: Tensor) -> Tensor:
    return torch.from_numpy(rows).to(like.device)


def _token_logprobs(logprobs: Tensor, tokens: Tensor, tops: Sequence[int]) -> list[TokenLogprobs]:
    """Return what clients get for each of K rows.

    Args:
        logprobs: [K, V] log-softmax of the logits.
        tokens: [K] int64 sampled tokens.
        tops: number of likeliest tokens that each row returns, at least 0.
    """
    sampled = logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).tolist()
    width = min(max(tops), logprobs.shape[-1])
    best = logprobs.topk(width)
    values, ids = best.values.tolist(), best.indices.tolist()
    return [
        TokenLogprobs(logprob, tuple(row_ids[:top]), tuple(row_values[:top]))
        for logprob, row_ids, row_values, top in zip(sampled, ids, values, tops, strict=True)
    ]
