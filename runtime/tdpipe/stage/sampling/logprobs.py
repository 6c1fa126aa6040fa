"""Log-probabilities of sampled tokens.

They are those of the model's own distribution, before bias, penalties, temperature and filters, as
vLLM returns them by default (`raw_logprobs`): a client that scores text wants the model's opinion,
not the sampler's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.core.sampling import TokenLogprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def token_logprobs(logprobs: Tensor, tokens: Tensor, tops: Sequence[int]) -> list[TokenLogprobs]:
    """What clients get for each of K rows.

    Args:
        logprobs: [K, V] log-softmax.
        tokens: [K] int64 sampled tokens.
        tops: how many likeliest tokens each row wants, at least 0.
    """
    sampled = logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).tolist()
    width = min(max(tops), logprobs.shape[-1])
    best = logprobs.topk(width)
    values, ids = best.values.tolist(), best.indices.tolist()
    return [
        TokenLogprobs(logprob, tuple(row_ids[:top]), tuple(row_values[:top]))
        for logprob, row_ids, row_values, top in zip(sampled, ids, values, tops, strict=True)
    ]
