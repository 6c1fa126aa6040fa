"""The attention backends and the function that chooses one.

`sdpa` runs on any device and is the reference; `cpu` is a C kernel for paged decode and ragged prefill.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError
from tdpipe.model.attention.base import AttentionBackend, BatchLayout, LayerKV
from tdpipe.model.attention.cpu.backend import CpuAttention
from tdpipe.model.attention.cpu.build import KernelUnavailableError
from tdpipe.model.attention.sdpa import SdpaAttention

if TYPE_CHECKING:
    import torch

__all__ = ["AttentionBackend", "BatchLayout", "LayerKV", "make_backend"]

_log = logging.getLogger(__name__)
_SETTING = "model.attention"


def make_backend(name: str, device: torch.device) -> AttentionBackend:
    """Return the backend that the setting `model.attention` means on `device`.

    Args:
        name: auto, sdpa or cpu. auto is cpu on a CPU where the kernel can be built and loaded, else sdpa.
        device: device of the model.

    Raises:
        SettingsError: the name is unknown, or it is cpu where that backend cannot run.
    """
    if name == "sdpa" or (name == "auto" and device.type != "cpu"):
        return SdpaAttention()
    if name not in ("auto", "cpu"):
        raise SettingsError(_SETTING, f"unknown backend {name!r}", "use auto, sdpa or cpu")
    if device.type != "cpu":
        raise SettingsError(
            _SETTING, f"cpu cannot compute attention on {device.type}", "use auto or sdpa"
        )
    try:
        return CpuAttention()
    except KernelUnavailableError as error:
        if name == "cpu":
            problem = f"the cpu kernel cannot be used: {error}"
            raise SettingsError(_SETTING, problem, "or use sdpa") from error
        _warn_once(str(error))
        return SdpaAttention()


@cache
def _warn_once(reason: str) -> None:
    _log.warning(
        "attention uses sdpa, whose decode is several times slower than the cpu kernel's: %s",
        reason,
    )
