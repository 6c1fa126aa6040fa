"""Penalties for tokens that a sequence has already.

They are rebuilt from the sequence's token ids at each draw instead of being kept as counts, so a
preempted sequence that comes back in another slot is penalised as if it had never left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from tdpipe.core.step import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class Penalties:
    """[K] values of K rows, as in `SamplingParams`."""

    repetition: FloatArray
    presence: FloatArray
    frequency: FloatArray


def apply_penalties(
    logits: Tensor,
    rows: Sequence[int],
    histories: Sequence[IntArray],
    prompt_lengths: Sequence[int],
    penalties: Penalties,
) -> None:
    """Change `logits` [any, V] of `rows` in place.

    A token of prompt or output has its logit divided by the repetition penalty if positive and
    multiplied by it if negative (Keskar et al., CTRL, 2019). Then a token of the output loses the
    frequency penalty for each time it is there and the presence penalty once.

    Args:
        logits: of the whole batch.
        rows: K rows to penalise.
        histories: token ids of prompt and output of each.
        prompt_lengths: how many of these are the prompt.
        penalties: of each.
    """
    size = logits.shape[-1]
    keys = np.concatenate(
        [index * size + tokens.astype(np.int64) for index, tokens in enumerate(histories)]
    )
    generated = np.concatenate(
        [
            np.arange(len(tokens)) >= length
            for tokens, length in zip(histories, prompt_lengths, strict=True)
        ]
    )
    # Few of the vocabulary's tokens are in a sequence; only these are touched.
    found, place = np.unique(keys, return_inverse=True)
    counts = np.bincount(place, weights=generated)
    index, token = np.divmod(found, size)
    row = np.asarray(rows)[index]

    def upload(array: FloatArray) -> Tensor:
        return torch.from_numpy(array).to(logits.device, logits.dtype)

    repetition = upload(penalties.repetition[index])
    subtracted = upload(
        counts * penalties.frequency[index] + (counts > 0) * penalties.presence[index]
    )
    where = (torch.from_numpy(row).to(logits.device), torch.from_numpy(token).to(logits.device))
    values = logits[where]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[where] = values - subtracted
