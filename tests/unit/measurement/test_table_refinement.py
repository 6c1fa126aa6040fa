from __future__ import annotations

from tdpipe.measurement.table_refinement import TableRefinement


def table(**points: float) -> TableRefinement:
    made = TableRefinement()
    for tokens, seconds in points.items():
        made.add(int(tokens[1:]), (1.0, seconds))
    return made


def test_the_edge_of_a_step_on_any_stage_is_found() -> None:
    found = table(t1=1.0, t64=2.0)
    requested = []
    while middles := found.middles():
        requested += middles
        for tokens in middles:
            found.add(tokens, (1.0, 1.0 if tokens <= 40 else 2.0))
    assert {40, 41} <= set(requested)
    assert len(requested) < 10


def test_a_line_needs_one_more_point() -> None:
    found = table(t100=1.0, t200=2.0)
    assert found.middles() == [150]
    found.add(150, (1.0, 1.5))
    assert found.middles() == []


def test_neighbours_with_similar_times_or_without_a_middle_are_not_refined() -> None:
    assert table(t1=1.0, t64=1.05).middles() == []
    assert table(t64=1.0, t65=2.0).middles() == []


def test_a_single_delayed_step_is_no_step_of_the_table() -> None:
    found = table(t1=1.0, t64=1.0)
    found.add(64, (9.0, 9.0))
    assert found.middles() == []
