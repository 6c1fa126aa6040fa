from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from tdpipe.stage.sampling.filters import (
    drop_below,
    min_p_threshold,
    top_k_threshold,
    top_p_threshold,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FILTERS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., object], list[float]]] = {
    "top_k": (top_k_threshold, TopKLogitsWarper, [1, 2, 7, 50, 1000, 5000]),
    "top_p": (top_p_threshold, TopPLogitsWarper, [0.01, 0.3, 0.7, 0.9, 0.99, 0.999]),
    "min_p": (min_p_threshold, MinPLogitsWarper, [0.001, 0.01, 0.1, 0.3, 0.5, 1.0]),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
@pytest.mark.parametrize("vocabulary", [40, 3000])
def test_the_tokens_that_are_kept_are_those_of_transformers(
    name: str, spread: float, vocabulary: int
) -> None:
    threshold, warper, values = FILTERS[name]
    logits = torch.randn(6, vocabulary, generator=torch.Generator().manual_seed(3)) * spread
    kind = torch.int64 if name == "top_k" else torch.float64
    found = drop_below(logits, threshold(logits, torch.tensor(values, dtype=kind)))
    for row, value in enumerate(values):
        alone: Callable[..., torch.Tensor] = warper(value)  # type: ignore[assignment]
        expected = alone(torch.zeros(1, 1, dtype=torch.long), logits[row : row + 1])
        assert torch.equal(found[row : row + 1], expected)


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(4, -1)
    found = top_p_threshold(logits, torch.tensor([0.0, 0.45, 0.6, 0.97], dtype=torch.float64))
    kept = (logits >= found).sum(-1)
    assert kept.tolist() == [1, 1, 2, 4]


def test_tokens_that_tie_with_the_last_one_are_kept() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    assert (logits >= top_k_threshold(logits, torch.tensor([2]))).sum() == 4
    assert (logits >= top_p_threshold(logits, torch.tensor([0.5]).double())).sum() == 4


def test_dropped_tokens_stay_dropped() -> None:
    logits = torch.tensor([[1.0, float("-inf"), 0.5]])
    found = drop_below(logits, top_p_threshold(logits, torch.tensor([0.9999999]).double()))
    assert found.isneginf().tolist() == [[False, True, False]]
