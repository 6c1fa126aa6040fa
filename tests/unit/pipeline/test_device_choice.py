from __future__ import annotations

import pytest
import torch

from tdpipe.pipeline.device_choice import DeviceName, choose_device


@pytest.mark.parametrize(
    ("built", "stages", "gpus", "device", "reason"),
    [
        (True, 2, 2, "cuda", "GPUs needed: 2, in the cluster: 2"),
        (True, 2, 4, "cuda", "GPUs needed: 2, in the cluster: 4"),
        (True, 1, 1, "cuda", "GPUs needed: 1, in the cluster: 1"),
        (True, 2, 1, "cpu", "GPUs needed: 2, in the cluster: 1"),
        (True, 2, 0, "cpu", "GPUs needed: 2, in the cluster: 0"),
        (False, 2, 2, "cpu", "this torch is built without CUDA"),
    ],
)
def test_auto_is_cuda_only_where_torch_can_use_it_and_every_stage_finds_a_gpu(
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
def test_a_device_that_is_asked_for_is_not_second_guessed(device: DeviceName, gpus: int) -> None:
    assert choose_device(device, 2, gpus).device == device
