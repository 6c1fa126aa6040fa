from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tdpipe.pipeline.transport.rendezvous import Rendezvous, RendezvousStore
from tdpipe.pipeline.transport.secure_sockets import EpochKeys

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
        keys=EpochKeys.generate(),
        join_timeout=5.0,
        step_timeout=5.0,
    )
    store.close()


def test_stages_of_an_epoch_share_the_values_in_the_store(rendezvous: Rendezvous) -> None:
    rendezvous.store().set("feedback", "tcp://127.0.0.1:5")
    assert rendezvous.store().get("feedback") == b"tcp://127.0.0.1:5"


def test_a_stage_of_another_epoch_sees_no_values(rendezvous: Rendezvous) -> None:
    rendezvous.store().set("feedback", "tcp://127.0.0.1:5")
    assert not replace(rendezvous, epoch="second").store().check(["feedback"])


def test_the_wait_for_a_missing_value_is_bounded(rendezvous: Rendezvous) -> None:
    with pytest.raises(Exception, match="timeout"):
        replace(rendezvous, join_timeout=0.1).store().get("feedback")
