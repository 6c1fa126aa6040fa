"""The start of a pipeline that the engine can use at once: loaded, connected, warmed up and with known costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.controller.engine_profile import check_device
from tdpipe.controller.warm_up import WarmUp
from tdpipe.scheduling.cost_fit import fit_cost
from tdpipe.scheduling.cost_model import profiled_cost

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.errors import TDPipeError
    from tdpipe.core.profile import Profile
    from tdpipe.pipeline.base import Pipeline, PipelineHost
    from tdpipe.scheduling.cost_model import CostModel

_WARM_UP_SECONDS = 3.0
_KNOWN_COST_WARM_UP_SECONDS = 0.5
"""Duration of the warm-up where the costs are known, so that only kernels have to be run once."""


@dataclass(frozen=True, slots=True)
class StartedPipeline:
    """A pipeline that is ready for requests."""

    pipeline: Pipeline
    cost: CostModel
    first_step: int
    """Number of the next step, because the warm-up has used some."""


class PipelineStarter:
    """Starts pipelines of the same stages, one after another.

    Args:
        host: Starts the stages.
        profile: The measured times of the stages. None measures them in the warm-up.
        token_budget: The number of tokens of the largest prefill step.
    """

    def __init__(self, host: PipelineHost, profile: Profile | None, token_budget: int) -> None:
        self._host = host
        self._profile = profile
        self._token_budget = token_budget
        self._measured: tuple[int, CostModel] | None = None
        """Epoch of the workers whose costs were measured, and these costs."""

    def start(self, progress: Callable[[str], None]) -> StartedPipeline:
        """Start a pipeline; for errors see `PipelineHost.start`.

        Args:
            progress: Called with a line of text for each step of the start.

        Raises:
            SettingsError: The profile was measured under other conditions.
        """
        pipeline = self._host.start(progress)
        try:
            if self._profile is not None:
                check_device(self._profile, pipeline)
            progress("warming up")
            cost = self._known_cost(pipeline.attempt.epoch)
            seconds = _WARM_UP_SECONDS if cost is None else _KNOWN_COST_WARM_UP_SECONDS
            warm_up = WarmUp(pipeline, self._token_budget, seconds)
            warm_up.run()
            if cost is None:
                cost = fit_cost(warm_up.observations)
                self._measured = pipeline.attempt.epoch, cost
        except BaseException:  # Ctrl-C must leave no process behind either
            pipeline.close()
            raise
        capacity = pipeline.capacity
        progress(
            f"KV cache: {capacity.blocks} blocks of {capacity.block_size} tokens for up to {capacity.slots} "
            f"requests of up to {capacity.longest_sequence} tokens"
        )
        return StartedPipeline(pipeline, cost, warm_up.next_step)

    @property
    def restartable(self) -> bool:
        """Whether a failed pipeline can be replaced."""
        return self._host.restartable

    def cancel(self) -> None:
        """End a start that is under way, and every later one, within seconds. Any thread may call this."""
        self._host.cancel()

    def failure(self) -> TDPipeError | None:
        """Return why no further pipeline can be started, or None. Any thread may call this."""
        return self._host.failure()

    def close(self) -> None:
        """Free what the host holds beyond its pipelines. Repeated calls have no effect."""
        self._host.close()

    def _known_cost(self, epoch: int) -> CostModel | None:
        if self._profile is not None:
            return profiled_cost(self._profile)
        if self._measured is not None and self._measured[0] == epoch:
            return self._measured[1]
        return None
