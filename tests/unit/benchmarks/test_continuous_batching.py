from __future__ import annotations

from benchmarks.request_mix import MixRequest
from benchmarks.systems.continuous_batching import Chunk, ContinuousBatcher

LONG = MixRequest((1, 2, 3, 4, 5), 2)
SHORT = MixRequest((6,), 3)


def serve(batcher: ContinuousBatcher) -> list[list[Chunk]]:
    """Run all steps; the token after position p is 100 + p."""
    steps = []
    while chunks := batcher.next_step():
        steps.append(chunks)
        sampled = [100 + each.start + len(each.tokens) for each in chunks if each.samples]
        batcher.complete_step(chunks, sampled)
    return steps


def test_every_request_gets_its_tokens_with_any_number_of_rows() -> None:
    for rows in (1, 2, 3):
        batcher = ContinuousBatcher((LONG, SHORT, LONG), rows, budget=3)
        serve(batcher)
        assert batcher.outputs() == ((105, 106), (101, 102, 103), (105, 106))


def test_a_prompt_above_the_budget_is_computed_in_chunks_of_which_the_last_samples() -> None:
    steps = serve(ContinuousBatcher((LONG,), 1, budget=3))
    assert steps == [
        [Chunk(0, 0, (1, 2, 3), False)],
        [Chunk(0, 3, (4, 5), True)],
        [Chunk(0, 5, (105,), True)],
    ]


def test_decode_comes_before_prefill() -> None:
    batcher = ContinuousBatcher((LONG, SHORT), 2, budget=6)
    first = batcher.next_step()
    assert [(each.row, len(each.tokens)) for each in first] == [(1, 1), (0, 5)]


def test_a_free_row_is_assigned_to_the_next_request() -> None:
    batcher = ContinuousBatcher((MixRequest((1,), 1), SHORT), 1, budget=4)
    chunks = batcher.next_step()
    assert batcher.complete_step(chunks, [9]) == [0]
    assert batcher.next_step() == [Chunk(0, 0, (6,), True)]
