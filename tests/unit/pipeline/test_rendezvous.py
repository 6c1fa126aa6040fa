from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tdpipe.pipeline.epoch_keys import EpochKeys
from tdpipe.pipeline.rendezvous import Rendezvous, RendezvousStore

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def rendezvous() -> Iterator[Rendezvous]:
    store = RendezvousStore("127.0.0.1")
    yield Rendezvous(
        epoch="first",
        stages=2,
        host="127.0.0.1",
        port=store.port,
        control="tcp://127.0.0.1:1",
        keys=EpochKeys.issue(),
        join_timeout=5.0,
        step_timeout=5.0,
    )
    store.close()


def test_stages_of_an_epoch_see_what_the_others_leave(rendezvous: Rendezvous) -> None:
    rendezvous.store().set("feedback", "tcp://127.0.0.1:5")
    assert rendezvous.store().get("feedback") == b"tcp://127.0.0.1:5"


def test_a_stage_of_another_epoch_meets_nobody(rendezvous: Rendezvous) -> None:
    rendezvous.store().set("feedback", "tcp://127.0.0.1:5")
    assert not replace(rendezvous, epoch="second").store().check(["feedback"])


def test_a_wait_for_what_nobody_leaves_is_bounded(rendezvous: Rendezvous) -> None:
    with pytest.raises(Exception, match="timeout"):
        replace(rendezvous, join_timeout=0.1).store().get("feedback")
