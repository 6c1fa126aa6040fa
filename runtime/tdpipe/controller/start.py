"""From settings to a ready engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.controller.engine import Engine
from tdpipe.controller.warm_up import WarmUp
from tdpipe.model.description import describe_model
from tdpipe.pipeline.start import start_pipeline
from tdpipe.prediction.survival import SurvivalPredictor
from tdpipe.scheduling.answers import Shape
from tdpipe.scheduling.cost_model import fit_cost
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.settings import Settings

_WARM_UP_SECONDS = 3.0


def start_engine(settings: Settings, progress: Callable[[str], None]) -> Engine:
    """Load the model at `model.path` into a pipeline, warm it up and start the engine.

    Args:
        settings: all of them, with `model.path` set.
        progress: told what is going on, line by line.

    Raises:
        SettingsError: a setting does not fit the model or the machine.
        ModelError: the checkpoint cannot be served.
        PipelineError: the pipeline does not start.
    """
    assert settings.model.path is not None
    description = describe_model(settings.model.path)
    pipeline = start_pipeline(settings, description, progress)
    try:
        progress("warming up")
        warm_up = WarmUp(pipeline, settings.scheduler.token_budget, _WARM_UP_SECONDS)
        warm_up.run()
        room = pipeline.capacity
        longest = min(room.max_context, room.blocks * room.block_size)
        progress(
            f"KV cache: {room.blocks} blocks of {room.block_size} tokens for up to {room.slots} "
            f"requests of up to {longest} tokens"
        )
        shape = Shape(pipeline.stages, room.blocks, room.block_size, room.slots, room.max_context)
        policy, cost = make_policy(settings.scheduler), fit_cost(warm_up.observations)
        scheduler = Scheduler(policy, shape, cost, first_step=warm_up.next_step)
        return Engine(pipeline, scheduler, SurvivalPredictor(), description.vocab_size)
    except BaseException:  # also a Ctrl-C must leave no process behind
        pipeline.close()
        raise
