from __future__ import annotations

from random import Random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from tdpipe.stage.sampling.penalties import Penalties, TokenCounts, apply_penalties

VOCABULARY = 12
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20)
ROW = st.tuples(
    TOKENS,
    st.integers(1, 20),
    st.sampled_from([1.0, 0.5, 1.3, 2.0]),
    st.sampled_from([0.0, -1.0, 0.7]),
    st.sampled_from([0.0, -0.5, 1.5]),
)


def penalised(
    logits: list[float],
    tokens: list[int],
    prompt: int,
    repetition: float,
    presence: float,
    frequency: float,
) -> list[float]:
    result = []
    for token, logit in enumerate(logits):
        value = logit
        if token in tokens:
            value = value / repetition if value > 0 else value * repetition
        count = tokens[prompt:].count(token)
        result.append(value - frequency * count - (presence if count else 0))
    return result


def counted(tokens: list[int], prompt: int, seed: int = 0) -> TokenCounts:
    """The counts of a sequence that grew to `tokens` a few tokens at a time."""
    counts, draw = TokenCounts(), Random(seed)
    ends = sorted({draw.randint(1, len(tokens)) for _ in range(4)} | {len(tokens)})
    for end in ends:
        counts.update(np.asarray(tokens[:end], np.int32), prompt)
    return counts


@given(st.lists(ROW, min_size=1, max_size=4), st.integers(0, 100))
@settings(deadline=None)
def test_penalties_are_those_of_the_definition(
    rows: list[tuple[list[int], int, float, float, float]], seed: int
) -> None:
    logits = torch.randn(len(rows) + 1, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    expected = [logits[0].tolist()]
    expected += [penalised(logits[at + 1].tolist(), *row) for at, row in enumerate(rows)]
    tokens, prompts, *values = zip(*rows, strict=True)
    apply_penalties(
        logits,
        list(range(1, len(rows) + 1)),
        [counted(each, prompt, seed) for each, prompt in zip(tokens, prompts, strict=True)],
        Penalties(*(np.asarray(each) for each in values)),
    )
    torch.testing.assert_close(logits, torch.tensor(expected))


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(1))
    tokens = [1, 5, 5, 7]
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([tokens]), logits.clone())
    off = np.zeros(1)
    apply_penalties(logits, [0], [counted(tokens, 2)], Penalties(np.full(1, 1.7), off, off))
    torch.testing.assert_close(logits, expected)
