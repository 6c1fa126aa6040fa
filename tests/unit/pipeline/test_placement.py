"""What the controller makes of Ray's answers; Ray itself is played."""

from __future__ import annotations

import pytest
import ray
from ray.exceptions import GetTimeoutError

from tdpipe.core.errors import PipelineError
from tdpipe.pipeline import placement
from tdpipe.pipeline.placement import Placement

CPUS, GPUS = {"CPU": 1.0}, {"GPU": 1.0}


class Group:
    def ready(self) -> None:
        pass


@pytest.fixture(autouse=True)
def one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of one node that gives every stage a place."""
    table = {"bundles_to_node_id": {0: "node", 1: "node"}}
    monkeypatch.setattr(placement, "placement_group", lambda *_, **__: Group())
    monkeypatch.setattr(placement, "placement_group_table", lambda _: table)
    monkeypatch.setattr(placement, "remove_placement_group", lambda _: None)
    monkeypatch.setattr(ray, "get", lambda *_, **__: None)
    for name in ("cluster_resources", "available_resources"):
        monkeypatch.setattr(ray, name, lambda: {"CPU": 8.0, "GPU": 1.0})


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node has no place after all."""

    def time_out(*_: object, **__: object) -> None:
        raise GetTimeoutError

    monkeypatch.setattr(ray, "get", time_out)


def test_stages_on_cpus_share_the_memory_of_their_node_and_each_has_its_own_gpu() -> None:
    assert Placement(2, CPUS, timeout=1).sharing() == [2, 2]
    assert Placement(2, GPUS, timeout=1).sharing() == [1, 1]


@pytest.mark.usefixtures("full")
def test_without_a_place_for_gpus_the_error_names_the_device_as_a_way_out() -> None:
    with pytest.raises(PipelineError, match=r"1 GPU each.*set model\.device to cpu or raise"):
        Placement(2, GPUS, timeout=1)


@pytest.mark.usefixtures("full")
def test_without_a_place_for_cpus_the_device_is_no_way_out() -> None:
    with pytest.raises(PipelineError, match="add nodes") as caught:
        Placement(2, CPUS, timeout=1)
    assert "model.device" not in str(caught.value)
