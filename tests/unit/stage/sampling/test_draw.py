from __future__ import annotations

import numpy as np
import torch

from tdpipe.stage.sampling.draw import draw_tokens, uniform_numbers


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_draw_depends_on_seed_and_position_alone() -> None:
    seeds = np.array([7, 7, 8, 7], np.uint64)
    positions = np.array([3, 4, 3, 3], np.int32)
    found = uniform_numbers(seeds, positions)
    assert found[0] == found[3]
    assert len(set(found.tolist())) == 3
    assert uniform_numbers(seeds[1:2], positions[1:2])[0] == found[1]


def test_draws_are_those_of_splitmix64() -> None:
    # The published generator gives e220a8397b1dcdaf first from state 0, and a seed of 0 mixes to 0.
    found = uniform_numbers(np.zeros(1, np.uint64), np.zeros(1, np.int32))
    assert found[0] == (0xE220A8397B1DCDAF >> 11) / 2**53


def test_draws_are_uniform_over_seeds_and_over_positions() -> None:
    many = np.arange(20_000)
    for seeds, positions in ((many, many * 0 + 5), (many * 0 + 5, many)):
        found = uniform_numbers(seeds.astype(np.uint64), positions.astype(np.int32))
        assert 0 <= found.min() < found.max() < 1
        counts = np.bincount((found * 50).astype(int), minlength=50)
        # Chi-squared with 49 degrees of freedom exceeds 94 in one of 10,000 cases.
        assert ((counts - 400) ** 2 / 400).sum() < 94
        assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.03


def test_tokens_come_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.5, -1.0, 2.0, float("-inf"), 1.0, 0.0, -3.0])
    rows = 30_000
    found = uniform_numbers(np.full(rows, 11, np.uint64), np.arange(rows, dtype=np.int32))
    tokens = draw_tokens(logits.expand(rows, -1), torch.from_numpy(found))
    expected = logits.softmax(-1) * rows
    counts = tokens.bincount(minlength=7)
    assert counts[3] == 0
    possible = expected > 0
    # Chi-squared with 5 degrees of freedom exceeds 26 in one of 10,000 cases.
    assert ((counts - expected) ** 2 / expected)[possible].sum() < 26


def test_tokens_are_in_the_order_of_their_ids() -> None:
    logits = torch.tensor([[0.25, 0.5, 0.25]]).log().expand(4, -1)
    assert draw_tokens(logits, numbers(0.0, 0.249, 0.251, 0.76)).tolist() == [0, 0, 1, 2]


def test_impossible_tokens_are_not_drawn_at_either_end() -> None:
    impossible = float("-inf")
    logits = torch.tensor([[impossible, 1.0, 1.0, impossible]]).expand(2, -1)
    largest = np.nextafter(1.0, 0.0)
    assert draw_tokens(logits, numbers(0.0, largest)).tolist() == [1, 2]


def test_a_rare_token_of_a_large_vocabulary_can_be_drawn() -> None:
    logits = torch.zeros(1, 100_000)
    logits[0, 1:] = -18.0
    # The other tokens have a probability of 0.0015 together, and each adds less than a float32 sum near 1 resolves.
    tokens = draw_tokens(logits.expand(2, -1), numbers(1 - 1e-9, 0.9986))
    assert tokens[0] == 99_999
    assert 0 < tokens[1] < 50_000


def test_logits_of_any_size_are_drawn_by_their_differences() -> None:
    logits = torch.tensor([[1000.0, 1000.0], [-1000.0, -1000.0]]).repeat_interleave(2, 0)
    assert draw_tokens(logits, numbers(0.25, 0.75, 0.25, 0.75)).tolist() == [0, 1, 0, 1]
