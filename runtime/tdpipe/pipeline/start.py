"""The start of a pipeline on the host of stages that the settings choose."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tdpipe.model.device import resolve_device
from tdpipe.pipeline.in_process import start_in_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import Settings
    from tdpipe.pipeline.base import Pipeline
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages


def start_pipeline(
    settings: Settings, stages: CheckpointStages, progress: Callable[[str], None]
) -> Pipeline:
    """Load a checkpoint into its stages and start them on the host of `pipeline.host`.

    Args:
        settings: settings of the engine.
        stages: plan of the stages.
        progress: function that receives one line of text for each step of the start.

    Raises:
        SettingsError: a stage has no room for the KV cache, or the device cannot be used.
        ModelError: the checkpoint cannot be loaded into this process.
        PipelineError: a stage could not be placed, loaded or connected.
    """
    if settings.pipeline.host == "in_process":
        device = resolve_device(settings.model.device)
        progress(f"stages compute on {device.type}")
        return start_in_process(settings.pipeline, stages, device, progress)
    if settings.model.device == "cuda" and not os.environ.get("RAY_ADDRESS"):
        resolve_device(
            "cuda"
        )  # The stages will be on this machine, so a lack of GPUs shows before Ray is started.
    # Importing Ray takes a second, and a pipeline in this process does not need it.
    from tdpipe.pipeline.ray.host import start_on_ray

    return start_on_ray(settings.pipeline, stages, settings.model.device, progress)
