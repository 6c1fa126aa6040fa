"""The profile of the pipeline that is to run: made by measuring it, or read and refused if it is of another."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import tdpipe
from tdpipe.controller.profile_fit import ProfileFit, fit_profile
from tdpipe.controller.profiling import Measurements, Profiling
from tdpipe.core.errors import SettingsError
from tdpipe.core.profile import (
    FitError,
    Profile,
    ProfiledLatencies,
    ProfiledMixing,
    ProfiledModel,
    ProfiledStage,
    Provenance,
    device_list,
    read_profile_file,
)
from tdpipe.model.description import describe_model
from tdpipe.pipeline.checkpoint_stages import CheckpointStages
from tdpipe.pipeline.start import start_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import Settings
    from tdpipe.model.description import ModelDescription
    from tdpipe.pipeline.base import Pipeline

_FIELD = "scheduler.profile"
_REMEDY = "measure this pipeline with `tdpipe profile`, or leave it out"


def measure_profile(
    settings: Settings, seconds: float, progress: Callable[[str], None]
) -> tuple[Profile, ProfileFit]:
    """Start the pipeline as `tdpipe serve` would, measure it and end it.

    Args:
        settings: all of them, with `model.path` and `model.name` set.
        seconds: that measuring may take, apart from the start.
        progress: told what is going on, line by line.

    Raises:
        SettingsError: a setting does not fit the model or the machine.
        ModelError: the checkpoint cannot be loaded.
        PipelineError: the pipeline does not start, or fails.
    """
    assert settings.model.path is not None
    description = describe_model(settings.model.path)
    partition = CheckpointStages.plan(settings, description).partition
    pipeline = start_pipeline(settings, description, progress)
    try:
        measured = Profiling(pipeline, settings.scheduler.token_budget, seconds, progress).run()
    finally:
        pipeline.close()
    fit = fit_profile(measured.steps)
    provenance = _provenance(settings, description, pipeline, partition)
    return _profile_of(fit, measured, provenance), fit


def load_profile(settings: Settings, description: ModelDescription) -> Profile | None:
    """The profile that `scheduler.profile` names, if it names one.

    Raises:
        SettingsError: it cannot be read, or is of another model, other stages than the settings say.
    """
    path = settings.scheduler.profile
    if path is None:
        return None
    profile = read_profile_file(path, _FIELD)
    made = profile.provenance
    if (stages := settings.pipeline.stages) != len(profile.stages):
        problem = f"{path} is of {len(profile.stages)} stages, pipeline.stages is {stages}"
        raise SettingsError(_FIELD, problem, _REMEDY)
    model = _profiled_model(settings, description)
    if not made.model.same_sizes(model):
        problem = f"{path} is of {made.model.name}, whose sizes are not those of {model.name}"
        raise SettingsError(_FIELD, problem, _REMEDY)
    partition = CheckpointStages.plan(settings, description).partition
    if made.partition != partition:
        problem = (
            f"{path} is of stages with {_listed(made.partition)} layers, not {_listed(partition)}"
        )
        raise SettingsError(_FIELD, problem, _REMEDY)
    return profile


def check_device(profile: Profile, pipeline: Pipeline, threads: int) -> None:
    """Refuse a profile whose times cannot be those of a pipeline that has started.

    Args:
        profile: to be used.
        pipeline: started.
        threads: of a stage, where it computes on a CPU.

    Raises:
        SettingsError: it computes on other devices, in another type or with other threads.
    """
    made = profile.provenance
    names = tuple(device.name for device in pipeline.devices)
    if made.devices != names:
        problem = (
            f"measured on {device_list(made.devices)}, the stages compute on {device_list(names)}"
        )
        raise SettingsError(_FIELD, problem, _REMEDY)
    on_cpu = any(device.kind == "cpu" for device in pipeline.devices)
    if on_cpu and made.threads_per_stage != threads:
        problem = (
            f"measured with {made.threads_per_stage} threads a stage, "
            f"pipeline.threads_per_stage is {threads}"
        )
        raise SettingsError(_FIELD, problem, _REMEDY)
    dtypes = {device.dtype for device in pipeline.devices}
    if dtypes != {made.dtype}:
        problem = f"measured in {made.dtype}, the stages compute in {min(dtypes)}"
        raise SettingsError(_FIELD, problem, _REMEDY)


def _provenance(
    settings: Settings,
    description: ModelDescription,
    pipeline: Pipeline,
    partition: tuple[int, ...],
) -> Provenance:
    room = pipeline.capacity
    return Provenance(
        date=datetime.datetime.now(datetime.UTC).date(),
        tdpipe=tdpipe.__version__,
        model=_profiled_model(settings, description),
        devices=tuple(device.name for device in pipeline.devices),
        dtype=pipeline.devices[0].dtype,
        partition=partition,
        threads_per_stage=settings.pipeline.threads_per_stage,
        kv_tokens=room.blocks * room.block_size,
    )


def _profiled_model(settings: Settings, description: ModelDescription) -> ProfiledModel:
    return ProfiledModel(
        name=settings.model.name or description.path.resolve().name,
        layers=description.layers,
        hidden_size=description.hidden_size,
        intermediate_size=description.intermediate_size,
        heads=description.heads,
        kv_heads=description.kv_heads,
        head_dim=description.head_dim,
        vocab_size=description.vocab_size,
    )


def _profile_of(fit: ProfileFit, measured: Measurements, provenance: Provenance) -> Profile:
    late = measured.latencies
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
        latencies=ProfiledLatencies(
            step=late.step,
            activations=late.activations,
            activation_token=late.activation_token,
            feedback=late.feedback,
        ),
        fit_error=FitError(
            mean=sum(error.mean * error.steps for error in fit.errors.values()) / steps,
            worst=max(error.worst for error in fit.errors.values()),
        ),
    )


def _listed(partition: tuple[int, ...]) -> str:
    return ",".join(map(str, partition))
