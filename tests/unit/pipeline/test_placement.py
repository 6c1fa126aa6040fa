"""The choice of the device, and the placement of stages, with Ray's functions replaced by fakes."""

from __future__ import annotations

import threading

import pytest
import ray
import torch

from tdpipe.core.errors import PipelineError
from tdpipe.pipeline.ray import placement
from tdpipe.pipeline.ray.deadline import Deadline
from tdpipe.pipeline.ray.placement import DeviceName, Placement, choose_device

CPUS, GPUS = {"CPU": 1.0}, {"GPU": 1.0}


class Group:
    def ready(self) -> None:
        pass


@pytest.fixture(autouse=True)
def one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of one node that has resources for every stage."""
    table = {"bundles_to_node_id": {0: "node", 1: "node"}}
    monkeypatch.setattr(placement, "placement_group", lambda *_, **__: Group())
    monkeypatch.setattr(placement, "placement_group_table", lambda _: table)
    monkeypatch.setattr(placement, "remove_placement_group", lambda _: None)
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs, []))
    for name in ("cluster_resources", "available_resources"):
        monkeypatch.setattr(ray, name, lambda: {"CPU": 8.0, "GPU": 1.0})


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster whose resources are all in use."""
    monkeypatch.setattr(ray, "wait", lambda refs, **_: ([], refs))


def place(stages: int, resources: dict[str, float], seconds: float = 0.01) -> Placement:
    return Placement([resources] * stages, Deadline(seconds, threading.Event()))


def test_stages_on_cpus_share_the_memory_of_their_node_and_stages_on_gpus_do_not() -> None:
    assert place(2, CPUS).sharing() == [2, 2]
    assert place(2, GPUS).sharing() == [1, 1]


@pytest.mark.usefixtures("full")
def test_without_free_gpus_the_error_suggests_the_cpu() -> None:
    with pytest.raises(PipelineError, match=r"1 GPU each.*set model\.device to cpu or raise"):
        place(2, GPUS)


@pytest.mark.usefixtures("full")
def test_without_free_cpus_the_error_does_not_suggest_another_device() -> None:
    with pytest.raises(PipelineError, match="add nodes") as caught:
        place(2, CPUS)
    assert "model.device" not in str(caught.value)


@pytest.mark.parametrize(
    ("built", "stages", "gpus", "device", "reason"),
    [
        (True, 2, 2, "cuda", "2 GPUs for 2 stages"),
        (True, 2, 4, "cuda", "4 GPUs for 2 stages"),
        (True, 1, 1, "cuda", "1 GPUs for 1 stages"),
        (True, 2, 1, "cpu", "there are 1 GPUs for them"),
        (True, 2, 0, "cpu", "there is no GPU"),
        (False, 2, 2, "cpu", "this torch is built without CUDA"),
    ],
)
def test_auto_is_cuda_only_if_torch_has_cuda_and_every_stage_gets_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
    *,
    built: bool,
    stages: int,
    gpus: int,
    device: DeviceName,
    reason: str,
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    choice = choose_device("auto", stages, gpus)
    assert (choice.device, choice.reason) == (device, reason)


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 4), ("cuda", 0)])
def test_a_device_in_the_settings_is_used_as_it_is(device: DeviceName, gpus: int) -> None:
    assert choose_device(device, 2, gpus).device == device


@pytest.mark.usefixtures("full")
def test_a_cancelled_start_stops_waiting_for_resources() -> None:
    cancelled = threading.Event()
    threading.Timer(0.05, cancelled.set).start()
    with pytest.raises(PipelineError, match="cancelled"):
        Placement([CPUS], Deadline(60.0, cancelled))
