from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tdpipe.core.attempt import Attempt
from tdpipe.pipeline.transport.rendezvous import Rendezvous, RendezvousStore
from tdpipe.pipeline.transport.secure_sockets import EpochKeys

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def rendezvous() -> Iterator[Rendezvous]:
    store = RendezvousStore("127.0.0.1")
    yield Rendezvous(
        attempt=Attempt(2, 1),
        stages=2,
        host="127.0.0.1",
        port=store.port,
        control="tcp://127.0.0.1:1",
        keys=EpochKeys.generate(),
        join_timeout=5.0,
        step_timeout=5.0,
    )
    store.close()


def test_stages_of_an_attempt_share_the_values_in_the_store(rendezvous: Rendezvous) -> None:
    rendezvous.store().set("feedback", "tcp://127.0.0.1:5")
    assert rendezvous.store().get("feedback") == b"tcp://127.0.0.1:5"


def test_a_stage_of_another_attempt_sees_no_values(rendezvous: Rendezvous) -> None:
    rendezvous.store().set("feedback", "tcp://127.0.0.1:5")
    for other in (Attempt(1, 1), Attempt(2, 2), Attempt(3, 1)):
        assert not replace(rendezvous, attempt=other).store().check(["feedback"])


def test_the_wait_for_a_missing_value_is_bounded(rendezvous: Rendezvous) -> None:
    with pytest.raises(Exception, match="timeout"):
        replace(rendezvous, join_timeout=0.1).store().get("feedback")
