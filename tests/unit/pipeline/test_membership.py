"""Which workers count, from tables of nodes as Ray gives them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tdpipe.pipeline.ray.membership import Membership, worker_resource


def node(*names: str, alive: bool = True, node_id: str = "n", cpus: float = 4.0) -> dict[str, Any]:
    return {
        "Alive": alive,
        "NodeID": node_id,
        "NodeManagerAddress": "10.0.0.2",
        "NodeManagerPort": 6400,
        "Resources": {"CPU": cpus, "memory": 1.0} | dict.fromkeys(names, 2.0),
    }


def workers(epoch: int, *places: int, alive: bool = True) -> list[dict[str, Any]]:
    return [
        node(worker_resource(epoch, place), node_id=f"{epoch}.{place}", alive=alive)
        for place in places
    ]


HEAD = node("node:__internal_head__")


def test_the_highest_complete_epoch_counts() -> None:
    membership = Membership([HEAD, *workers(2, 0, 1), *workers(3, 1, 0), *workers(4, 0)])
    assert membership.complete_epoch(2, 1) == 3
    assert [worker.place for worker in membership.workers(3)] == [0, 1]
    assert membership.describe(2, 1) == (
        "1 of 2 workers of epoch 4 are here; without a worker: place 1"
    )


def test_epochs_before_the_first_one_never_count() -> None:
    membership = Membership(workers(2, 0, 1))
    assert membership.complete_epoch(2, 3) is None
    assert membership.describe(2, 3).startswith("0 of 2 workers of epoch 3 are here")


def test_dead_workers_do_not_count() -> None:
    table = [*workers(1, 0), *workers(1, 1, alive=False)]
    assert Membership(table).complete_epoch(2, 1) is None


def test_a_place_that_is_claimed_twice_does_not_count() -> None:
    membership = Membership([*workers(1, 0, 1), *workers(1, 1)])
    assert membership.complete_epoch(2, 1) is None
    assert membership.describe(2, 1) == "2 of 2 workers of epoch 1 are here; claimed twice: place 1"


def test_other_resources_and_further_places_are_no_hindrance() -> None:
    table = [node("tdpipe_x_1", "GPU", "tdpipe_1"), *workers(1, 0, 1, 2, 5)]
    assert Membership(table).complete_epoch(2, 1) == 1


@given(
    claims=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.booleans()), max_size=20),
    count=st.integers(1, 3),
    first=st.integers(1, 4),
)
def test_a_complete_epoch_has_one_living_worker_at_each_place(
    claims: list[tuple[int, int, bool]], count: int, first: int
) -> None:
    table = [
        node(worker_resource(epoch, place), alive=alive, node_id=str(number))
        for number, (epoch, place, alive) in enumerate(claims)
    ]
    living = [(epoch, place) for epoch, place, alive in claims if alive]
    complete = [
        epoch
        for epoch in range(first, 5)
        if all(living.count((epoch, place)) == 1 for place in range(count))
    ]
    assert Membership(table).complete_epoch(count, first) == max(complete, default=None)
