"""From settings to a ready engine."""

from __future__ import annotations

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
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.profiled_cost import profiled_cost
from tdpipe.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import PredictorSettings, Settings
    from tdpipe.pipeline.base import Pipeline
    from tdpipe.prediction.base import LengthPredictor

_WARM_UP_SECONDS = 3.0
_BRIEF_WARM_UP_SECONDS = 0.5
"""Where a profile tells the costs, and only kernels have to be touched."""


def _unwatched(pipeline: Pipeline) -> Pipeline:
    return pipeline


def plan_stages(settings: Settings) -> CheckpointStages:
    """Describe the checkpoint at `model.path` and plan its stages, once for all who need either.

    Args:
        settings: all of them, with `model.path` set.

    Raises:
        ModelError: the checkpoint cannot be served.
        SettingsError: a setting does not fit the model.
    """
    assert settings.model.path is not None
    return CheckpointStages.plan(settings, describe_model(settings.model.path))


def start_engine(
    settings: Settings,
    stages: CheckpointStages,
    progress: Callable[[str], None],
    watch: Callable[[Pipeline], Pipeline] = _unwatched,
) -> Engine:
    """Load a checkpoint into a pipeline, warm it up and start the engine.

    Args:
        settings: all of them.
        stages: the checkpoint's stages, planned from these settings.
        progress: told what is going on, line by line.
        watch: puts something around the pipeline that sees the engine's steps and their results.

    Raises:
        SettingsError: a setting does not fit the machine, or the profile is of another pipeline.
        ModelError: the checkpoint cannot be loaded.
        PipelineError: the pipeline does not start.
    """
    profile = load_profile(settings, stages)
    predictor = _make_predictor(settings.predictor)
    pipeline = start_pipeline(settings, stages, progress)
    try:
        if profile is not None:
            check_device(profile, pipeline, settings.pipeline.threads_per_stage)
        progress("warming up")
        seconds = _WARM_UP_SECONDS if profile is None else _BRIEF_WARM_UP_SECONDS
        warm_up = WarmUp(pipeline, settings.scheduler.token_budget, seconds)
        warm_up.run()
        room = pipeline.capacity
        progress(
            f"KV cache: {room.blocks} blocks of {room.block_size} tokens for up to {room.slots} "
            f"requests of up to {room.longest_sequence} tokens"
        )
        policy = make_policy(settings.scheduler)
        cost = fit_cost(warm_up.observations) if profile is None else profiled_cost(profile)
        scheduler = Scheduler(policy, room, cost, first_step=warm_up.next_step)
        return Engine(watch(pipeline), scheduler, predictor, stages.description.sizes.vocab_size)
    except BaseException:  # also a Ctrl-C must leave no process behind
        pipeline.close()
        raise


def _make_predictor(settings: PredictorSettings) -> LengthPredictor:
    model = None if settings.path is None else read_model(settings.path, "predictor.path")
    trainer = TrainingProcess() if settings.training_rows else None
    return CatBoostPredictor(model, trainer, settings.training_rows)
