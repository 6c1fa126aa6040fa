"""The host of stages that the settings of one machine choose, and the start of a single pipeline on it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tdpipe.model.device import resolve_device
from tdpipe.pipeline.in_process import InProcessHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import Settings
    from tdpipe.pipeline.base import Pipeline, PipelineHost
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages


def make_host(settings: Settings, stages: CheckpointStages) -> PipelineHost:
    """Return the host that `pipeline.host` chooses. Nothing is started yet.

    Args:
        settings: settings of the engine.
        stages: plan of the stages.

    Raises:
        SettingsError: the device cannot be used.
    """
    if settings.pipeline.host == "in_process":
        return InProcessHost(settings.pipeline, stages, resolve_device(settings.model.device))
    if settings.model.device == "cuda" and not os.environ.get("RAY_ADDRESS"):
        # The stages will be on this machine, so a lack of GPUs shows before Ray is started.
        resolve_device("cuda")
    # Importing Ray takes a second, and a pipeline in this process does not need it.
    from tdpipe.pipeline.ray.host import RayHost
    from tdpipe.pipeline.ray.places import FreePlaces

    places = FreePlaces(stages.stages, settings.pipeline.threads, settings.model.device)
    return RayHost(settings.pipeline, stages, places)


def start_pipeline(
    settings: Settings, stages: CheckpointStages, progress: Callable[[str], None]
) -> Pipeline:
    """Load a checkpoint into its stages and start them; for errors see `PipelineHost.start`.

    Args:
        settings: settings of the engine.
        stages: plan of the stages.
        progress: function that receives one line of text for each step of the start.
    """
    return make_host(settings, stages).start(progress)
