"""Start of the engine: from settings to an engine that is ready to serve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.controller.engine import Engine
from tdpipe.controller.engine_profile import load_profile
from tdpipe.controller.pipeline_starter import PipelineStarter
from tdpipe.controller.readiness import Readiness
from tdpipe.controller.recovery import Recovery
from tdpipe.controller.restart_budget import RestartBudget
from tdpipe.model.description import describe_model
from tdpipe.pipeline.checkpoint_stages import CheckpointStages
from tdpipe.pipeline.start import make_host
from tdpipe.prediction.catboost_predictor import CatBoostPredictor
from tdpipe.prediction.model_file import read_model
from tdpipe.prediction.training_process import TrainingProcess
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import PredictorSettings, Settings
    from tdpipe.pipeline.base import Pipeline, PipelineHost
    from tdpipe.prediction.length_predictor import LengthPredictor


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What an `Engine` is made of, with the pipeline started and warmed up."""

    starter: PipelineStarter
    """Starter of the pipeline and of those that may replace it."""
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
    settings: Settings,
    stages: CheckpointStages,
    progress: Callable[[str], None],
    host: PipelineHost | None = None,
) -> Engine:
    """Start the engine, and return when it has generated a first token.

    Arguments and errors are those of `prepare_engine`.
    """
    parts = prepare_engine(settings, stages, progress, host)
    budget = RestartBudget(settings.recovery.max_restarts, settings.recovery.max_restarts_per_hour)
    server = settings.server
    engine = Engine(
        parts.pipeline,
        parts.scheduler,
        parts.predictor,
        parts.vocab_size,
        Recovery(parts.starter, budget, progress),
        Readiness(proven=False, patience=server.recovery_patience, queue=server.recovery_queue),
    )
    try:
        engine.await_ready()
    except BaseException:
        engine.close()
        raise
    return engine


def prepare_engine(
    settings: Settings,
    stages: CheckpointStages,
    progress: Callable[[str], None],
    host: PipelineHost | None = None,
) -> EngineParts:
    """Load a checkpoint into a pipeline and warm it up.

    Args:
        settings: All settings.
        stages: The checkpoint's stages, planned from these settings.
        progress: Called with a line of text for each step of the start.
        host: Starts the stages, and is closed if the start fails. None takes the host of `pipeline.host`.

    Raises:
        SettingsError: A setting does not fit the machine, or the profile is of another pipeline.
        ModelError: The checkpoint cannot be loaded.
        PipelineError: The pipeline does not start.
    """
    host = host or make_host(settings, stages)
    try:
        profile = load_profile(settings, stages)
        predictor = _make_predictor(settings.predictor)
        starter = PipelineStarter(host, profile, settings.scheduler.token_budget)
        started = starter.start(progress)
        pipeline = started.pipeline
    except BaseException:  # Ctrl-C must leave no process behind either
        host.close()
        raise
    policy = make_policy(settings.scheduler)
    scheduler = Scheduler(policy, pipeline.capacity, started.cost, started.first_step)
    vocab_size = stages.description.sizes.vocab_size
    return EngineParts(starter, pipeline, scheduler, predictor, vocab_size)


def _make_predictor(settings: PredictorSettings) -> LengthPredictor:
    model = None if settings.path is None else read_model(settings.path, "predictor.path")
    trainer = TrainingProcess() if settings.training_rows else None
    return CatBoostPredictor(model, trainer, settings.training_rows)
