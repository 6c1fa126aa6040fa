"""The conversion of what goes wrong in a stage into an error that says whether another start can help.

Stages send the result to the controller, so it is always one of tdpipe's own errors, which can be pickled.
"""

from __future__ import annotations

import traceback

import torch

from tdpipe.core.errors import PipelineError, StageMemoryError, TDPipeError, one_line

_CPU_ALLOCATION_FAILURE = "can't allocate memory"
"""Part of the message of the RuntimeError that torch raises where memory for a tensor on the CPU is refused."""


def to_stage_error(error: Exception, stage: int, problem: str) -> TDPipeError:
    """Return the error that a stage reports. It must be called while `error` is handled.

    Args:
        error: what the stage raised.
        stage: number of the stage.
        problem: what happened to the stage, such as `could not load`.
    """
    if isinstance(error, TDPipeError):
        return error.in_stage(stage)
    prefix = f"stage {stage} {problem}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        _CPU_ALLOCATION_FAILURE in str(error)
    ):
        return StageMemoryError(
            f"{prefix} because memory ran out: {one_line(error)}; set less cache.memory, use more stages, "
            "or give the stage more memory"
        ).in_stage(stage)
    return PipelineError(f"{prefix}:\n{traceback.format_exc()}").in_stage(stage)
