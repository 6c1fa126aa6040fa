"""From settings to a running pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.model.device import resolve_device
from tdpipe.pipeline.checkpoint_stages import CheckpointStages
from tdpipe.pipeline.in_process import start_in_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import Settings
    from tdpipe.model.description import ModelDescription
    from tdpipe.pipeline.base import Pipeline


def start_pipeline(
    settings: Settings, description: ModelDescription, progress: Callable[[str], None]
) -> Pipeline:
    """Load a checkpoint into its stages and start them where `pipeline.host` says.

    Args:
        settings: all of them.
        description: of the checkpoint at `model.path`.
        progress: told what is going on, line by line.

    Raises:
        SettingsError: the model cannot be cut or cached as the settings say.
        ModelError: the checkpoint cannot be loaded (in process).
        PipelineError: a stage could not be placed, loaded or connected.
    """
    builder = CheckpointStages.plan(settings, description)
    if settings.pipeline.host == "in_process":
        device = resolve_device(settings.model.device)
        progress(f"stages compute on {device.type}")
        return start_in_process(settings.pipeline, builder, device, progress)
    # Importing Ray takes a second, which a pipeline in process has no use for.
    from tdpipe.pipeline.ray_host import start_on_ray

    return start_on_ray(settings.pipeline, builder, settings.model.device, progress)
