"""Which device the stages of a cluster compute on.

The controller decides, before it asks for places, and may itself run where no GPU is; so it looks
at what the cluster counts and how torch is built, not at the devices that it sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

DeviceName = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """One device for all stages."""

    device: DeviceName
    reason: str
    """For people."""


def choose_device(asked: Literal["auto"] | DeviceName, stages: int, gpus: int) -> DeviceChoice:
    """The device that `model.device` means on a cluster with so many GPUs.

    `auto` is cuda where torch can use it and each stage finds a GPU, else cpu.
    """
    if asked != "auto":
        return DeviceChoice(asked, "as model.device says")
    counts = f"GPUs needed: {stages}, in the cluster: {gpus}"
    if gpus < stages:
        return DeviceChoice("cpu", counts)
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return DeviceChoice("cpu", "this torch is built without CUDA")
    return DeviceChoice("cuda", counts)
