from __future__ import annotations

from tdpipe.measurement.table_refinement import TableRefinement


def table(**points: float) -> TableRefinement:
    made = TableRefinement()
    for tokens, seconds in points.items():
        made.add(int(tokens[1:]), (1.0, seconds))
    return made


def test_a_step_on_any_stage_is_closed_in_on_until_its_edge_is_found() -> None:
    found = table(t1=1.0, t64=2.0)
    asked = []
    while middles := found.middles():
        asked += middles
        for tokens in middles:
            found.add(tokens, (1.0, 1.0 if tokens <= 40 else 2.0))
    assert {40, 41} <= set(asked)
    assert len(asked) < 10


def test_a_line_takes_one_point_more() -> None:
    found = table(t100=1.0, t200=2.0)
    assert found.middles() == [150]
    found.add(150, (1.0, 1.5))
    assert found.middles() == []


def test_neighbours_that_are_near_or_have_nothing_between_them_are_let_alone() -> None:
    assert table(t1=1.0, t64=1.05).middles() == []
    assert table(t64=1.0, t65=2.0).middles() == []


def test_what_held_one_step_up_is_no_step_of_the_table() -> None:
    found = table(t1=1.0, t64=1.0)
    found.add(64, (9.0, 9.0))
    assert found.middles() == []
