"""From logits to tokens.

The order is vLLM's: bias, penalties, then temperature, then transformers' order of filters (top-k,
top-p, min-p), then the draw. Rows that need none of it cost one argmax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tdpipe.stage.sampling.draw import draw_tokens, uniforms
from tdpipe.stage.sampling.filters import (
    drop_below,
    min_p_threshold,
    top_k_threshold,
    top_p_threshold,
)
from tdpipe.stage.sampling.logprobs import token_logprobs
from tdpipe.stage.sampling.parameters import NO_LOGPROBS, ParameterTable
from tdpipe.stage.sampling.penalties import Penalties, apply_penalties

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tdpipe.core.sampling import SamplingParams, TokenLogprobs
    from tdpipe.core.step import IntArray
    from tdpipe.stage.slots import TokenTable

_FILTERS = (
    ("top_k", 0, top_k_threshold),
    ("top_p", 1, top_p_threshold),
    ("min_p", 0, min_p_threshold),
)
"""Parameter, its value that keeps all, and the least logit that other values keep."""


class Sampler:
    """Draws each slot's next token.

    Args:
        slots: number of slots.
    """

    def __init__(self, slots: int) -> None:
        self._parameters = ParameterTable(slots)

    def start(self, slot: int, params: SamplingParams) -> None:
        """A slot's new request is sampled so."""
        self._parameters.store(slot, params)

    def sample(
        self, logits: Tensor, slots: IntArray, positions: IntArray, history: TokenTable
    ) -> tuple[IntArray, tuple[TokenLogprobs | None, ...]]:
        """Draw one token per row.

        Args:
            logits: [K, V] float32; overwritten.
            slots: [K] slot of each row.
            positions: [K] that each token will have in its sequence.
            history: token ids of the slots' sequences up to there.

        Returns:
            [K] tokens, and log-probabilities for those rows that ask for them, () if none does.
        """
        parameters = self._parameters
        wants = (parameters.logprobs[slots] != NO_LOGPROBS).nonzero()[0]
        raw = logits[_index(wants, logits)].log_softmax(-1) if len(wants) else None

        self._bias(logits, slots)
        self._penalise(logits, slots, positions, history)
        chosen = logits.argmax(-1)
        warm = (parameters.temperature[slots] > 0).nonzero()[0]
        if len(warm):
            rows = _index(warm, logits)
            chosen[rows] = self._draw(logits[rows], slots[warm], positions[warm])

        tokens = chosen.to(torch.int32).cpu().numpy()
        if raw is None:
            return tokens, ()
        found: list[TokenLogprobs | None] = [None] * len(slots)
        tops = parameters.logprobs[slots[wants]].tolist()
        asked = token_logprobs(raw, chosen[_index(wants, logits)], tops)
        for row, logprobs in zip(wants.tolist(), asked, strict=True):
            found[row] = logprobs
        return tokens, tuple(found)

    def _bias(self, logits: Tensor, slots: IntArray) -> None:
        for row in self._parameters.biased[slots].nonzero()[0].tolist():
            tokens, biases = zip(*self._parameters.logit_bias[slots[row]], strict=True)
            ids = torch.tensor(tokens, device=logits.device)
            values = torch.tensor(biases, device=logits.device, dtype=logits.dtype)
            logits[row].index_add_(0, ids, values)

    def _penalise(
        self, logits: Tensor, slots: IntArray, positions: IntArray, history: TokenTable
    ) -> None:
        parameters = self._parameters
        rows = parameters.penalised[slots].nonzero()[0]
        if not len(rows):
            return
        slots = slots[rows]
        apply_penalties(
            logits,
            rows.tolist(),
            [
                history.tokens[slot, :end]
                for slot, end in zip(slots.tolist(), positions[rows].tolist(), strict=True)
            ],
            history.prompt_lengths[slots].tolist(),
            Penalties(
                parameters.repetition_penalty[slots],
                parameters.presence_penalty[slots],
                parameters.frequency_penalty[slots],
            ),
        )

    def _draw(self, logits: Tensor, slots: IntArray, positions: IntArray) -> Tensor:
        parameters = self._parameters
        # With the likeliest at 0, a temperature near 0 sends the others to -inf instead of all of
        # them to inf.
        logits = logits - logits.amax(-1, keepdim=True)
        temperature = torch.from_numpy(parameters.temperature[slots]).to(logits)
        logits /= temperature.clamp_(min=torch.finfo(logits.dtype).tiny).unsqueeze(-1)
        for name, off, threshold in _FILTERS:
            values = getattr(parameters, name)[slots]
            on = (values != off).nonzero()[0]
            if len(on):
                rows = _index(on, logits)
                part = logits[rows]
                wanted = torch.from_numpy(values[on]).to(logits.device)
                logits[rows] = drop_below(part, threshold(part, wanted))
        numbers = uniforms(parameters.seed[slots], positions)
        return draw_tokens(logits, torch.from_numpy(numbers).to(logits.device))


def _index(rows: np.ndarray[Any, np.dtype[np.intp]], like: Tensor) -> Tensor:
    return torch.from_numpy(rows).to(like.device)
