"""The measured profile from which the engine takes its step times.

`tdpipe profile` writes it. A profile of another model, partition or device would mislead the scheduler without any
error, so it is refused here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError
from tdpipe.core.profile import Profile, device_list, read_profile_file

if TYPE_CHECKING:
    from tdpipe.core.settings import Settings
    from tdpipe.pipeline.base import Pipeline
    from tdpipe.pipeline.checkpoint_stages import CheckpointStages

_FIELD = "scheduler.profile"
_REMEDY = "measure this pipeline with `tdpipe profile`, or leave it out"


def load_profile(settings: Settings, stages: CheckpointStages) -> Profile | None:
    """Read the profile that `scheduler.profile` names, if it names one.

    Args:
        settings: All settings.
        stages: The planned stages of the checkpoint.

    Raises:
        SettingsError: The file cannot be read, or it describes another model or other stages.
    """
    path = settings.scheduler.profile
    if path is None:
        return None
    profile = read_profile_file(path, _FIELD)
    made = profile.provenance
    if stages.stages != len(profile.stages):
        problem = f"{path} is of {len(profile.stages)} stages, pipeline.stages is {stages.stages}"
        raise SettingsError(_FIELD, problem, _REMEDY)
    if not made.model.same_sizes(stages.description.sizes):
        name = settings.model.name or stages.description.sizes.name
        problem = f"{path} is of {made.model.name}, whose sizes are not those of {name}"
        raise SettingsError(_FIELD, problem, _REMEDY)
    if made.partition != stages.partition:
        problem = (
            f"{path} is of stages with {_listed(made.partition)} layers, "
            f"not {_listed(stages.partition)}"
        )
        raise SettingsError(_FIELD, problem, _REMEDY)
    return profile


def check_device(profile: Profile, pipeline: Pipeline) -> None:
    """Refuse a profile that was measured under other conditions than those of the started pipeline.

    Args:
        profile: The profile.
        pipeline: The started pipeline.

    Raises:
        SettingsError: The pipeline computes on other devices, in another data type or with another number of threads.
    """
    made = profile.provenance
    names = tuple(device.name for device in pipeline.devices)
    if made.devices != names:
        problem = (
            f"measured on {device_list(made.devices)}, the stages compute on {device_list(names)}"
        )
        raise SettingsError(_FIELD, problem, _REMEDY)
    threads = max((each.threads for each in pipeline.devices if each.kind == "cpu"), default=None)
    if threads is not None and made.threads_per_stage != threads:
        problem = (
            f"measured with {made.threads_per_stage} threads a stage, "
            f"the stages compute with {threads}"
        )
        raise SettingsError(_FIELD, problem, _REMEDY)
    dtypes = {device.dtype for device in pipeline.devices}
    if dtypes != {made.dtype}:
        problem = f"measured in {made.dtype}, the stages compute in {min(dtypes)}"
        raise SettingsError(_FIELD, problem, _REMEDY)


def _listed(partition: tuple[int, ...]) -> str:
    return ",".join(map(str, partition))
