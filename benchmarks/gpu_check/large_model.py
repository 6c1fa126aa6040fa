"""The large random Llama of the check: where it is written, how many layers fit, and how it is served."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from benchmarks.gpu_check.context import temporary_folder
from benchmarks.gpu_check.kept_stages import KeptStages
from benchmarks.gpu_check.llama_checkpoint import write_llama
from benchmarks.gpu_check.part import Finding, PartSkippedError
from benchmarks.systems.run import BLOCK_SIZE, RunConfig, System
from benchmarks.systems.tdpipe_engine import engine_settings
from tdpipe.model.description import describe_model
from tdpipe.pipeline.kv_budget import available_memory

if TYPE_CHECKING:
    from benchmarks.gpu_check.context import CheckContext
    from benchmarks.request_mix import MixRequest
    from tdpipe.core.model_sizes import ModelSizes
    from tdpipe.core.settings import Settings

_DTYPE: Final = "bfloat16"
_DTYPE_BYTES = 2
_MEMORY_DISK = Path("/dev/shm")
_HOST_COPIES = 3
"""Weights in files in memory lie there twice while they are loaded, and some memory must remain."""
_DISK_SHARE = 0.8
_WEIGHT_SHARE = 0.6
"""Maximum share of the device's free memory that weights take."""
_KV_SHARE = 0.4
"""Maximum share of the memory left by the weights that the KV cache takes; transformers needs more than the cache."""


def write_model(context: CheckContext, end: float) -> Finding:
    """Write the checkpoint where there is the most room, in memory or on a disk.

    Raises:
        TimeoutError: it takes too long.
        OSError: there is not enough room.
    """
    scale = context.scale
    place, room = _place(context.scratch, _DTYPE_BYTES * scale.model.parameters)
    free = _free_memory(context.device)
    layers = _fitting_layers(scale.model, min(room, int(_WEIGHT_SHARE * free)))
    if layers < scale.min_layers:
        raise OSError(
            f"room for {layers} layers only: {room / 2**30:.1f} GiB in {place}, "
            f"{free / 2**30:.1f} GiB on the device"
        )
    path = Path(context.cleanup.enter_context(temporary_folder(place)))
    # Some of the part's time is left for the layer that is being written and for the index.
    written = write_llama(path, scale, layers, context.device, end - 0.2 * (end - time.monotonic()))
    context.checkpoint = path
    text = f"{written.layers} layers, {written.size / 1e9:.3g} GB in {written.seconds:.1f} s"
    if layers < scale.model.layers:
        text += f"; there is no room for all {scale.model.layers}"
    elif written.layers < layers:
        text += f"; there was no time for all {scale.model.layers}"
    return Finding(text, {"layers": written.layers, "bytes": written.size})


def load_model(context: CheckContext) -> Finding:
    """Load the checkpoint's stages onto the device, for all parts that start a pipeline of it.

    Raises:
        PartSkippedError: there is no checkpoint.
        ModelError: the checkpoint cannot be loaded.
    """
    if context.checkpoint is None:
        raise PartSkippedError("the checkpoint was not written")
    description = describe_model(context.checkpoint)
    context.kv_blocks = _kv_blocks(context, description.sizes)
    stages = KeptStages.plan(large_settings(context), description)
    began = time.monotonic()
    loaded = [
        stages.load(stage, context.device, sharing=stages.stages) for stage in range(stages.stages)
    ]
    context.loaded = stages
    names = "; ".join(stage.name for stage in loaded)
    parameters, seconds = description.sizes.parameters, time.monotonic() - began
    return Finding(
        f"{parameters / 1e9:.3g} billion parameters in {seconds:.1f} s: {names}",
        {"parameters": parameters, "seconds": seconds, "stages": [each.name for each in loaded]},
    )


def unload_model(context: CheckContext) -> None:
    """Free the device's memory for engines that load the checkpoint themselves."""
    context.loaded = None
    context.release_memory()


def large_settings(context: CheckContext) -> Settings:
    """Settings of a pipeline of the large model.

    Raises:
        PartSkippedError: there is no checkpoint.
    """
    settings = engine_settings(
        large_run_config(context, System("steps", "tdpipe", context.stages, "adaptive"))
    )
    # The checkpoint's directory is a temporary one, whose name says nothing.
    model = settings.model.model_copy(update={"name": context.scale.model.name})
    return settings.model_copy(update={"model": model})


def large_run_config(
    context: CheckContext, system: System, requests: tuple[MixRequest, ...] = ()
) -> RunConfig:
    """Return the configuration with which a system serves the large model.

    Raises:
        PartSkippedError: there is no checkpoint.
    """
    if context.checkpoint is None:
        raise PartSkippedError("the checkpoint was not written")
    return RunConfig(
        system,
        str(context.checkpoint),
        requests,
        context.kv_blocks,
        context.scale.prefill,
        threads=1,
        dtype=_DTYPE,
        device=context.device.type,
        host="in_process",
    )


def _kv_blocks(context: CheckContext, sizes: ModelSizes) -> int:
    """Number of blocks for the largest measured step, or as many as there is room for."""
    scale = context.scale
    wanted = max(scale.batches) * -(-(scale.context + 1) // BLOCK_SIZE)
    wanted = max(wanted, -(-scale.prefill // BLOCK_SIZE))
    free = _free_memory(context.device) - _DTYPE_BYTES * sizes.parameters
    return min(wanted, int(_KV_SHARE * free / (BLOCK_SIZE * sizes.kv_bytes(_DTYPE_BYTES))))


def _fitting_layers(sizes: ModelSizes, room: int) -> int:
    ends = _DTYPE_BYTES * 2 * sizes.head_weights
    return min(sizes.layers, int((room - ends) // (_DTYPE_BYTES * sizes.layer_weights)))


def _place(scratch: Path, size: int) -> tuple[Path, int]:
    """Choose the directory for a checkpoint: in memory if all of it fits there, else where most of it fits.

    Returns:
        The directory, and its room in bytes.
    """
    rooms = {scratch: int(_DISK_SHARE * shutil.disk_usage(scratch).free)}
    if _MEMORY_DISK.is_dir():
        free = int(_DISK_SHARE * shutil.disk_usage(_MEMORY_DISK).free)
        rooms[_MEMORY_DISK] = min(available_memory() // _HOST_COPIES, free)
    place = max(rooms, key=lambda each: (min(rooms[each], size), each == _MEMORY_DISK))
    return place, rooms[place]


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
