"""The filters top-k, top-p and min-p, as transformers' warpers define them.

Each filter keeps the tokens whose logit reaches a threshold. Tokens that tie with the least likely one that is kept are
kept too, because a set that depended on how a sort breaks ties could differ from batch to batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_TOP_P_CANDIDATES = 1024
"""Number of likeliest tokens among which top-p searches first. Sorting the whole vocabulary costs many times more and
is needed only for rows whose probability is spread over more tokens."""


def top_k_threshold(logits: Tensor, top_k: Tensor) -> Tensor:
    """Return the lowest logit that top-k keeps in each row: the k-th largest.

    Args:
        logits: [K, V].
        top_k: [K] int64, at least 1; a value above V keeps every token.

    Returns:
        [K, 1] in the dtype of `logits`.
    """
    rank = top_k.clamp(max=logits.shape[-1]).unsqueeze(-1)
    return logits.topk(int(rank.max())).values.gather(-1, rank - 1)


def top_p_threshold(logits: Tensor, top_p: Tensor) -> Tensor:
    """Return the lowest logit that top-p keeps in each row.

    A row keeps the smallest set of its likeliest tokens whose probabilities sum to at least top-p, and always its
    likeliest token.

    Args:
        logits: [K, V]; the probabilities are their softmax.
        top_p: [K] float64.

    Returns:
        [K, 1] in the dtype of `logits`.
    """
    size = logits.shape[-1]
    threshold, reached = _nucleus(logits, top_p, min(_TOP_P_CANDIDATES, size))
    wide = (~reached).nonzero().squeeze(-1)
    if size > _TOP_P_CANDIDATES and len(wide):
        threshold[wide], _ = _nucleus(logits[wide], top_p[wide], size)
    return threshold


def _nucleus(logits: Tensor, top_p: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return top-p's [K, 1] threshold among the `width` likeliest tokens, and [K] whether their sum reaches top-p."""
    ordered = logits.topk(width).values
    normaliser = logits.logsumexp(-1, keepdim=True)
    probabilities = (ordered - normaliser).double().exp_()
    cumulative = probabilities.cumsum(-1)
    needed = cumulative - probabilities < top_p.unsqueeze(-1)
    last = needed.sum(-1, keepdim=True).sub_(1).clamp_(min=0)
    return ordered.gather(-1, last), cumulative[:, -1] >= top_p


def min_p_threshold(logits: Tensor, min_p: Tensor) -> Tensor:
    """Return the logit of a token whose probability is min-p times that of the row's likeliest token.

    Args:
        logits: [K, V].
        min_p: [K] float64, above 0.

    Returns:
        [K, 1] in the dtype of `logits`.
    """
    return logits.amax(-1, keepdim=True) + min_p.log().to(logits.dtype).unsqueeze(-1)


def drop_below(logits: Tensor, threshold: Tensor) -> Tensor:
    """Return `logits` [K, V] with those below their row's threshold [K, 1] set to -inf."""
    return torch.where(logits < threshold, float("-inf"), logits)
