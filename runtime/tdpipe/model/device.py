"""The device that a stage computes on, and the type that it computes in.

Both depend on what the machine has, so the settings' `auto` is resolved where the stage runs.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from tdpipe.core.errors import SettingsError


def resolve_device(name: str) -> torch.device:
    """Return the device that the setting `model.device` means on this machine.

    `auto` is cuda where a CUDA device is available, else cpu.

    Raises:
        SettingsError: `name` is cuda and there is no CUDA device.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SettingsError("model.device", "torch finds no CUDA device here", "use cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the type that the setting `model.dtype` means on `device`.

    `auto` is bfloat16 on GPUs that support it, else float32.
    """
    # CPUs get float32 even if they multiply bfloat16 faster, because only in float32 the output
    # equals that of transformers under any batching.
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def device_name(device: torch.device) -> str:
    """Return the product name of the device, such as that of the GPU or the CPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()
