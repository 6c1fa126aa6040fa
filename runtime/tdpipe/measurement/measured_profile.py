"""Profile of the pipeline that the settings describe, made by starting and measuring it."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING

import tdpipe
from tdpipe.controller.start import plan_stages
from tdpipe.core.profile import (
    FitError,
    Profile,
    ProfiledMixing,
    ProfiledStage,
    Provenance,
)
from tdpipe.measurement.profile_fit import ProfileFit, fit_profile
from tdpipe.measurement.profiling import Measurements, Profiling
from tdpipe.pipeline.start import start_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import Settings
    from tdpipe.pipeline.base import Pipeline
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages


def measure_profile(
    settings: Settings, seconds: float, progress: Callable[[str], None]
) -> tuple[Profile, ProfileFit]:
    """Start the pipeline as `tdpipe serve` does, measure it and close it.

    Args:
        settings: All settings, with `model.path` set.
        seconds: The time that the measurement may take, without the start.
        progress: Called with a line of text for each step of the work.

    Returns:
        The profile, and the fit that it is made of.

    Raises:
        SettingsError: A setting does not fit the model or the machine.
        ModelError: The checkpoint cannot be loaded.
        PipelineError: The pipeline does not start, or fails.
    """
    stages = plan_stages(settings)
    pipeline = start_pipeline(settings, stages, progress)
    try:
        measured = Profiling(pipeline, settings.scheduler.token_budget, seconds, progress).run()
    finally:
        pipeline.close()
    fit = fit_profile(measured.steps)
    provenance = _provenance(settings, stages, pipeline)
    return _profile_of(fit, measured, provenance), fit


def _provenance(settings: Settings, stages: CheckpointStages, pipeline: Pipeline) -> Provenance:
    sizes = stages.description.sizes
    return Provenance(
        date=datetime.datetime.now(datetime.UTC).date(),
        tdpipe=tdpipe.__version__,
        model=replace(sizes, name=settings.model.name or sizes.name),
        devices=tuple(device.name for device in pipeline.devices),
        dtype=pipeline.devices[0].dtype,
        partition=stages.partition,
        threads_per_stage=pipeline.devices[0].threads,
        kv_tokens=pipeline.capacity.kv_tokens,
    )


def _profile_of(fit: ProfileFit, measured: Measurements, provenance: Provenance) -> Profile:
    steps = sum(error.steps for error in fit.errors.values())
    return Profile(
        provenance=provenance,
        stages=tuple(
            ProfiledStage(
                tokens=tuple(stage.table_tokens.tolist()),
                seconds=tuple(stage.table_seconds.tolist()),
                per_kv_token=stage.per_context,
                per_sampled_token=stage.per_sampled,
            )
            for stage in fit.cost.stages
        ),
        mixing=ProfiledMixing(seconds=fit.mixing.seconds, decode_context=fit.mixing.decode_context),
        chunk_tile=fit.chunk_tile,
        latencies=measured.latencies,
        fit_error=FitError(
            mean=sum(error.mean * error.steps for error in fit.errors.values()) / steps,
            worst=max(error.worst for error in fit.errors.values()),
        ),
    )
