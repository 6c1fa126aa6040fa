from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tdpipe.core.sampling import SamplingParams
from tdpipe.core.step import NO_TOKEN
from tdpipe.stage.sampling import Sampler
from tdpipe.stage.slots import TokenTable
from tests.support.step_driver import row_step, start_of

if TYPE_CHECKING:
    from tdpipe.core.sampling import TokenLogprobs

VOCABULARY = 50
REQUESTS = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=1),
    SamplingParams(temperature=0.7, top_k=5, seed=2),
    SamplingParams(temperature=1.5, top_p=0.8, seed=3),
    SamplingParams(temperature=1.0, min_p=0.1, seed=-4),
    SamplingParams(temperature=0.9, top_k=9, top_p=0.9, min_p=0.05, seed=2**63),
    SamplingParams(repetition_penalty=1.4, presence_penalty=0.5, frequency_penalty=0.3),
    SamplingParams(temperature=1.0, frequency_penalty=1.0, logit_bias=((3, 4.0), (9, -100.0))),
    SamplingParams(logprobs=3),
]


class Harness:
    """A sampler over as many slots as there are requests, each with some history."""

    def __init__(self, requests: list[SamplingParams]) -> None:
        self.sampler = Sampler(len(requests), torch.device("cpu"))
        self.history = TokenTable(slots=len(requests), max_context=20, vocab_size=VOCABULARY)
        starts = tuple(
            start_of(slot, slot, [slot % 7, 3, 3, 20 + slot % 5]) for slot in range(len(requests))
        )
        self.history.apply(row_step(0, [(0, 0, 1, True)], starts))
        for slot, params in enumerate(requests):
            self.sampler.start(slot, params)

    def sample(
        self, logits: torch.Tensor, slots: list[int], position: int = 4
    ) -> tuple[list[int], tuple[TokenLogprobs | None, ...]]:
        tokens, logprobs = self.sampler.sample(
            logits.clone(),
            np.asarray(slots, np.int32),
            np.full(len(slots), position, np.int32),
            self.history,
        )
        return tokens.tolist(), logprobs


def random_logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def test_a_requests_token_does_not_depend_on_its_batch() -> None:
    harness = Harness(REQUESTS)
    logits = random_logits(len(REQUESTS))
    slots = list(range(len(REQUESTS)))
    alone = [harness.sample(logits[slot : slot + 1], [slot])[0][0] for slot in slots]
    for seed in range(5):
        order = Random(seed).sample(slots, 2 + seed)
        assert harness.sample(logits[order], order)[0] == [alone[slot] for slot in order]


def test_a_slots_next_request_keeps_no_parameters_of_the_last() -> None:
    harness, fresh = Harness(REQUESTS), Harness([SamplingParams()] * len(REQUESTS))
    for slot in range(len(REQUESTS)):
        harness.sampler.start(slot, SamplingParams())
    logits, slots = random_logits(len(REQUESTS)), list(range(len(REQUESTS)))
    assert harness.sample(logits, slots) == fresh.sample(logits, slots)


def test_greedy_takes_the_likeliest_token() -> None:
    logits = random_logits(3)
    assert (
        Harness([SamplingParams()] * 3).sample(logits, [0, 1, 2])[0] == logits.argmax(-1).tolist()
    )


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-6])
def test_the_lowest_temperatures_are_greedy(temperature: float) -> None:
    logits = random_logits(1) * 100
    drawn, _ = Harness([SamplingParams(temperature=temperature)]).sample(logits, [0])
    assert drawn == logits.argmax(-1).tolist()


def test_greedy_takes_the_same_one_of_equally_likely_tokens_whatever_the_seed() -> None:
    harness = Harness([SamplingParams(seed=seed) for seed in range(20)])
    tokens, _ = harness.sample(torch.zeros(20, VOCABULARY), list(range(20)))
    assert len(set(tokens)) == 1


def test_draws_follow_temperature_and_filters() -> None:
    params = SamplingParams(temperature=0.5, top_k=4, top_p=0.95, min_p=0.02, seed=5)
    harness, logits, rows = Harness([params]), random_logits(1) / 4, 4000
    scaled = logits[0] / 0.5
    scaled[scaled < scaled.topk(4).values[-1]] = float("-inf")
    expected = scaled.softmax(-1)
    ordered = expected.sort(descending=True)
    expected[ordered.indices[ordered.values.cumsum(-1) - ordered.values >= 0.95]] = 0
    expected[expected < 0.02 * expected.max()] = 0
    expected = expected / expected.sum() * rows
    tokens, _ = harness.sampler.sample(
        logits.expand(rows, -1).clone(),
        np.zeros(rows, np.int32),
        np.arange(rows, dtype=np.int32),
        harness.history,
    )
    counts = torch.from_numpy(tokens).bincount(minlength=VOCABULARY)
    possible = expected > 0
    assert 1 < possible.sum() < 5
    assert counts[~possible].sum() == 0
    # Chi-squared with 3 degrees of freedom exceeds 21 in one of 10,000 cases.
    assert ((counts - expected) ** 2 / expected)[possible].sum() < 21


def test_bias_can_force_a_token_and_forbid_another() -> None:
    logits = random_logits(2)
    best = int(logits[1].argmax())
    harness = Harness(
        [
            SamplingParams(logit_bias=((17, 100.0),)),
            SamplingParams(temperature=1.0, logit_bias=((best, -100.0),)),
        ]
    )
    for position in range(4, 12):
        forced, free = harness.sample(logits, [0, 1], position)[0]
        assert forced == 17
        assert free != best


def test_biases_are_prepared_when_a_request_starts_and_not_at_each_of_its_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = Harness([SamplingParams(logit_bias=((17, 100.0),))])
    prepared, make_tensor = [], torch.tensor

    def prepare(values: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401 - as torch's
        prepared.append(values)
        return make_tensor(values, **options)

    monkeypatch.setattr(torch, "tensor", prepare)
    for position in range(4, 8):
        assert harness.sample(torch.zeros(1, VOCABULARY), [0], position)[0] == [17]
    assert prepared == []


def test_penalties_count_each_token_of_a_sequence_once() -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[:, [3, 30]] = torch.tensor([5.0, 4.9])
    harness = Harness([SamplingParams(repetition_penalty=1.1)])
    assert harness.sample(logits, [0])[0] == [30]
    # Token 3 has been counted, and its places in the sequence are not read again.
    harness.history.tokens[0, :4] = 30
    slot, position, token = (np.array([each], np.int32) for each in (0, 4, 12))
    harness.history.extend(slot, position, token)
    assert harness.sample(logits, [0], position=5)[0] == [30]


def test_penalties_see_the_tokens_of_their_own_sequence() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[:, [3, 30]] = torch.tensor([5.0, 4.9])
    harness = Harness([SamplingParams(repetition_penalty=1.1), SamplingParams()])
    assert harness.sample(logits, [0, 1])[0] == [30, 3]


@pytest.mark.parametrize(
    "filtered",
    [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}],
    ids=lambda filtered: next(iter(filtered)),
)
def test_each_filter_alone_can_leave_only_the_likeliest_token(filtered: dict[str, Any]) -> None:
    requests = [SamplingParams(temperature=1.0, seed=seed, **filtered) for seed in range(20)]
    logits = random_logits(1)
    tokens, _ = Harness(requests).sample(logits.expand(20, -1), list(range(20)))
    assert tokens == [int(logits.argmax())] * 20


def test_requests_draw_with_their_own_seeds() -> None:
    seeds = [*range(-20, 20), 2**64 + 7]
    harness = Harness([SamplingParams(temperature=1.0, seed=seed) for seed in seeds])
    tokens, _ = harness.sample(torch.zeros(len(seeds), VOCABULARY), list(range(len(seeds))))
    assert len(set(tokens)) > 20
    assert tokens[-1] == tokens[seeds.index(7)]  # seeds count modulo 2**64


@pytest.mark.parametrize(
    "penalty",
    [{"repetition_penalty": 2.0}, {"presence_penalty": 1.0}, {"frequency_penalty": 1.0}],
    ids=lambda penalty: next(iter(penalty)),
)
def test_each_penalty_alone_makes_a_token_of_the_output_less_likely(
    penalty: dict[str, Any],
) -> None:
    logits = torch.zeros(1, VOCABULARY)
    logits[:, [40, 41]] = torch.tensor([5.0, 4.9])
    harness = Harness([SamplingParams(**penalty)])
    slot, position, token = (np.array([each], np.int32) for each in (0, 4, 40))
    assert harness.sample(logits, [0])[0] == [40]
    harness.history.extend(slot, position, token)
    assert harness.sample(logits, [0], position=5)[0] == [41]


def test_presence_and_frequency_penalties_do_not_count_the_prompt() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[:, [3, 30]] = torch.tensor([5.0, 4.9])  # the prompts have token 3 twice
    harness = Harness([SamplingParams(presence_penalty=1.0), SamplingParams(frequency_penalty=1.0)])
    assert harness.sample(logits, [0, 1])[0] == [3, 3]


def test_a_request_alone_gets_as_many_logprobs_as_it_asks_for() -> None:
    _, (found,) = Harness([SamplingParams(logprobs=7)]).sample(random_logits(1), [0])
    assert found is not None
    assert len(found.top_tokens) == 7


def test_logprobs_are_of_the_models_own_distribution() -> None:
    params = SamplingParams(temperature=2.0, top_k=3, seed=8, logit_bias=((40, 100.0),), logprobs=2)
    logits = random_logits(3)
    harness = Harness([SamplingParams(logprobs=0), SamplingParams(), params])
    tokens, found = harness.sample(logits, [0, 1, 2])
    expected = logits.log_softmax(-1)
    assert found[1] is None
    for row, top in ((0, 0), (2, 2)):
        entry = found[row]
        assert entry is not None
        assert entry.logprob == pytest.approx(expected[row, tokens[row]].item())
        best = expected[row].topk(top)
        assert entry.top_tokens == tuple(best.indices.tolist())
        assert entry.top_logprobs == pytest.approx(best.values.tolist())
    assert tokens[2] == 40


def test_without_a_request_for_logprobs_none_are_computed() -> None:
    assert Harness([SamplingParams()] * 2).sample(random_logits(2), [0, 1])[1] == ()


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_row_whose_logits_are_not_finite_gets_no_token_and_the_others_theirs(
    wrong: float, everywhere: bool
) -> None:
    requests = REQUESTS + [SamplingParams(temperature=1.0, seed=5, logprobs=2)] * 2
    harness, slots = Harness(requests), list(range(len(requests)))
    logits = random_logits(len(requests))
    expected, scores = harness.sample(logits, slots)
    for slot in slots:
        broken = logits.clone()
        broken[slot, slice(None) if everywhere else slice(7, 8)] = wrong
        tokens, logprobs = harness.sample(broken, slots)
        assert tokens[slot] == NO_TOKEN
        assert logprobs[slot] is None
        assert tokens[:slot] + tokens[slot + 1 :] == expected[:slot] + expected[slot + 1 :]
        assert logprobs[:slot] + logprobs[slot + 1 :] == scores[:slot] + scores[slot + 1 :]


def test_a_token_that_is_ruled_out_is_no_fault() -> None:
    logits = random_logits(1)
    logits[0, 10:] = -torch.inf
    (token,), _ = Harness([SamplingParams()]).sample(logits, [0])
    assert 0 <= token < 10
