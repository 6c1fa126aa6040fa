"""Which tokens top-k, top-p and min-p leave, as transformers' warpers define them.

Each filter keeps the likeliest tokens down to some logit. Tokens that tie with the last one kept
are kept, too: a set that depended on how a sort breaks ties could differ from batch to batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_CANDIDATES = 1024
"""Likeliest tokens among which top-p looks first. Sorting a whole vocabulary costs many times more
and is needed only by rows whose mass is spread wider."""


def top_k_threshold(logits: Tensor, top_k: Tensor) -> Tensor:
    """The least logit that each row keeps: its k-th largest.

    Args:
        logits: [K, V].
        top_k: [K] int64, at least 1; more than V keeps all.

    Returns:
        [K, 1].
    """
    rank = top_k.clamp(max=logits.shape[-1]).unsqueeze(-1)
    return logits.topk(int(rank.max())).values.gather(-1, rank - 1)


def top_p_threshold(logits: Tensor, top_p: Tensor) -> Tensor:
    """The least logit of each row's smallest set of likeliest tokens with a mass of at least top-p.

    Args:
        logits: [K, V]; the mass is their softmax.
        top_p: [K] float64.

    Returns:
        [K, 1]; a row keeps its likeliest token whatever its top-p.
    """
    size = logits.shape[-1]
    threshold, reached = _nucleus(logits, top_p, min(_CANDIDATES, size))
    wide = (~reached).nonzero().squeeze(-1)
    if size > _CANDIDATES and len(wide):
        threshold[wide], _ = _nucleus(logits[wide], top_p[wide], size)
    return threshold


def _nucleus(logits: Tensor, top_p: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Top-p's [K, 1] threshold among the `width` likeliest tokens, and [K] whether they suffice."""
    ordered = logits.topk(width).values
    mass = logits.logsumexp(-1, keepdim=True)
    probabilities = (ordered - mass).double().exp_()
    through = probabilities.cumsum(-1)
    needed = through - probabilities < top_p.unsqueeze(-1)
    last = needed.sum(-1, keepdim=True).sub_(1).clamp_(min=0)
    return ordered.gather(-1, last), through[:, -1] >= top_p


def min_p_threshold(logits: Tensor, min_p: Tensor) -> Tensor:
    """The logit of a token whose probability is min-p times that of the row's likeliest.

    Args:
        logits: [K, V].
        min_p: [K] float64, above 0.

    Returns:
        [K, 1].
    """
    return logits.amax(-1, keepdim=True) + min_p.log().to(logits.dtype).unsqueeze(-1)


def drop_below(logits: Tensor, threshold: Tensor) -> Tensor:
    """`logits` [K, V] with those below their row's threshold [K, 1] at -inf."""
    return torch.where(logits < threshold, float("-inf"), logits)
