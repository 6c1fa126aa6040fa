"""Start of the engine: from settings to an engine that is ready to serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.controller.engine import Engine
from tdpipe.controller.engine_profile import check_device, load_profile
from tdpipe.controller.warm_up import WarmUp
from tdpipe.model.description import describe_model
from tdpipe.pipeline.checkpoint_stages import CheckpointStages
from tdpipe.pipeline.start import start_pipeline
from tdpipe.prediction.catboost_predictor import CatBoostPredictor
from tdpipe.prediction.model_file import read_model
from tdpipe.prediction.training_process import TrainingProcess
from tdpipe.scheduling.cost_fit import fit_cost
from tdpipe.scheduling.cost_model import profiled_cost
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import PredictorSettings, Settings
    from tdpipe.pipeline.base import Pipeline
    from tdpipe.prediction.length_predictor import LengthPredictor

_WARM_UP_SECONDS = 3.0
_PROFILED_WARM_UP_SECONDS = 0.5
"""Warm-up with a profile, which has the costs, so that only kernels have to be run once."""


@dataclass(frozen=True, slots=True)
class EngineParts:
    """The arguments of an `Engine`, with the pipeline started and warmed up."""

    pipeline: Pipeline
    scheduler: Scheduler
    predictor: LengthPredictor
    vocab_size: int


def plan_stages(settings: Settings) -> CheckpointStages:
    """Describe the checkpoint at `model.path` and plan its stages.

    Args:
        settings: All settings, with `model.path` set.

    Raises:
        ModelError: The checkpoint cannot be served.
        SettingsError: A setting does not fit the model.
    """
    assert settings.model.path is not None
    return CheckpointStages.plan(settings, describe_model(settings.model.path))


def start_engine(
    settings: Settings, stages: CheckpointStages, progress: Callable[[str], None]
) -> Engine:
    """Load a checkpoint into a pipeline, warm it up and start the engine; arguments are those of `prepare_engine`."""
    parts = prepare_engine(settings, stages, progress)
    return Engine(parts.pipeline, parts.scheduler, parts.predictor, parts.vocab_size)


def prepare_engine(
    settings: Settings, stages: CheckpointStages, progress: Callable[[str], None]
) -> EngineParts:
    """Load a checkpoint into a pipeline and warm it up.

    Args:
        settings: All settings.
        stages: The checkpoint's stages, planned from these settings.
        progress: Called with a line of text for each step of the start.

    Raises:
        SettingsError: A setting does not fit the machine, or the profile is of another pipeline.
        ModelError: The checkpoint cannot be loaded.
        PipelineError: The pipeline does not start.
    """
    profile = load_profile(settings, stages)
    predictor = _make_predictor(settings.predictor)
    pipeline = start_pipeline(settings, stages, progress)
    try:
        if profile is not None:
            check_device(profile, pipeline, settings.pipeline.threads_per_stage)
        progress("warming up")
        seconds = _WARM_UP_SECONDS if profile is None else _PROFILED_WARM_UP_SECONDS
        warm_up = WarmUp(pipeline, settings.scheduler.token_budget, seconds)
        warm_up.run()
        capacity = pipeline.capacity
        progress(
            f"KV cache: {capacity.blocks} blocks of {capacity.block_size} tokens for up to {capacity.slots} "
            f"requests of up to {capacity.longest_sequence} tokens"
        )
        policy = make_policy(settings.scheduler)
        cost = fit_cost(warm_up.observations) if profile is None else profiled_cost(profile)
        scheduler = Scheduler(policy, capacity, cost, first_step=warm_up.next_step)
        return EngineParts(pipeline, scheduler, predictor, stages.description.sizes.vocab_size)
    except BaseException:  # Ctrl-C must leave no process behind either
        pipeline.close()
        raise


def _make_predictor(settings: PredictorSettings) -> LengthPredictor:
    model = None if settings.path is None else read_model(settings.path, "predictor.path")
    trainer = TrainingProcess() if settings.training_rows else None
    return CatBoostPredictor(model, trainer, settings.training_rows)
