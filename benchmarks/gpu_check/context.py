"""The state that the parts of the check share: sizes, directories, and findings that later parts build on."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu_check.part import PartSkippedError

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from benchmarks.gpu_check.kept_stages import KeptStages
    from benchmarks.gpu_check.scale import Scale


@dataclass(slots=True)
class CheckContext:
    """The state of one run of the check."""

    device: torch.device
    scale: Scale
    output: Path
    """Directory of the files that are kept."""
    scratch: Path
    """Directory of everything that is deleted at the end."""
    cleanup: ExitStack
    """Deletes what lies elsewhere, also at the end."""
    stages: int
    """Pipeline stages of the large model."""
    bandwidth: float | None = None
    """Bytes per second that the device's memory reads and writes."""
    rate: float | None = None
    """Floating-point operations per second in bfloat16."""
    checkpoint: Path | None = None
    """Directory of the large model."""
    loaded: KeptStages | None = None
    """Weights of the large model."""
    kv_blocks: int = 0
    """KV blocks of the large model's stages."""
    prompt_seconds: float = 0.0
    """Seconds per prompt token in the measured prefill."""
    output_seconds: float = 0.0
    """Seconds per output token in the largest measured decode steps; both are 0 where nothing was measured."""

    @property
    def model(self) -> KeptStages:
        """The large model.

        Raises:
            PartSkippedError: it could not be written or loaded.
        """
        if self.loaded is None:
            raise PartSkippedError("the large model is not loaded")
        return self.loaded

    def release_memory(self) -> None:
        """Give memory back that parts no longer use: pipelines look at what the device has free."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()


def temporary_folder(parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A directory that is deleted at the end, also where a part that took too long still writes into it."""
    return tempfile.TemporaryDirectory(prefix="gpu-check-", dir=parent, ignore_cleanup_errors=True)
