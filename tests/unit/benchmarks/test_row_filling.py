from __future__ import annotations

from benchmarks.request_mix import MixRequest
from benchmarks.systems.row_filling import Piece, RowFilling

LONG = MixRequest((1, 2, 3, 4, 5), 2)
SHORT = MixRequest((6,), 3)


def serve(filling: RowFilling) -> list[list[Piece]]:
    """Run to the end; the token after position p is 100 + p."""
    steps = []
    while pieces := filling.next_step():
        steps.append(pieces)
        sampled = [100 + each.start + len(each.tokens) for each in pieces if each.samples]
        filling.take(pieces, sampled)
    return steps


def test_every_request_gets_its_tokens_whatever_the_rows() -> None:
    for rows in (1, 2, 3):
        filling = RowFilling((LONG, SHORT, LONG), rows, budget=3)
        serve(filling)
        assert filling.outputs() == ((105, 106), (101, 102, 103), (105, 106))


def test_a_prompt_above_the_budget_is_computed_in_pieces_of_which_the_last_samples() -> None:
    steps = serve(RowFilling((LONG,), 1, budget=3))
    assert steps == [
        [Piece(0, 0, (1, 2, 3), False)],
        [Piece(0, 3, (4, 5), True)],
        [Piece(0, 5, (105,), True)],
    ]


def test_decode_comes_before_prefill() -> None:
    filling = RowFilling((LONG, SHORT), 2, budget=6)
    first = filling.next_step()
    assert [(each.row, len(each.tokens)) for each in first] == [(1, 1), (0, 5)]


def test_a_free_row_goes_to_the_next_request() -> None:
    filling = RowFilling((MixRequest((1,), 1), SHORT), 1, budget=4)
    pieces = filling.next_step()
    assert filling.take(pieces, [9]) == [0]
    assert filling.next_step() == [Piece(0, 0, (6,), True)]
