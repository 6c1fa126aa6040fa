"""The interface between the engine and a pipeline.

The engine submits steps and polls for results. It does not see how stages are hosted or how messages travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from tdpipe.core.attempt import Attempt
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.errors import TDPipeError
    from tdpipe.core.step import Step, StepOutput


@dataclass(frozen=True, slots=True)
class StageDevice:
    """The device of a stage and the data type that it computes in."""

    name: str
    """Product name of the device: `NVIDIA L20`."""
    kind: str
    """Device type in torch's terms: `cuda` or `cpu`."""
    dtype: str
    """Data type of weights, activations and KV cache in torch's terms: `bfloat16`."""
    threads: int = 1
    """Number of CPU threads that the stage computes with."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step that every stage has executed."""

    output: StepOutput
    busy: tuple[float, ...]
    """[stages] seconds that each stage spent computing the step."""


class Pipeline(Protocol):
    """A running pipeline. One thread calls all methods except `wake`."""

    attempt: Attempt
    """Start that made this pipeline."""
    stages: int
    capacity: Capacity
    devices: tuple[StageDevice, ...]
    """[stages] device of each stage."""

    def submit(self, step: Step) -> None:
        """Send a step to every stage without blocking. Stages execute steps in the order of submission."""

    def poll(self, timeout: float | None) -> list[StepResult]:
        """Return the steps that were completed since the last call, in the order of submission.

        The call waits up to `timeout` seconds, or without a limit if it is None, for at least one result. It returns an
        empty list when the time is up or `wake` was called.

        Raises:
            PipelineError: a stage failed (the text holds its traceback), or no result came within
                `pipeline.step_timeout`.
        """

    def wake(self) -> None:
        """Make the blocked `poll`, or else the next one, return at once. Any thread may call this."""

    def close(self) -> None:
        """Stop the stages and free their resources within seconds. Repeated calls have no effect."""


class PipelineHost(Protocol):
    """Starts pipelines of the same stages, one after another. Each start is a later attempt than the ones before."""

    restartable: bool
    """Whether a failed pipeline can be replaced."""

    def start(self, progress: Callable[[str], None]) -> Pipeline:
        """Place, load and connect all stages. The pipeline before must be closed.

        Args:
            progress: function that receives one line of text for each step of the start.

        Raises:
            SettingsError: the stages cannot work with these settings on these machines.
            ModelError: the checkpoint cannot be loaded.
            WorkersMissingError: the workers that the stages need did not come in time.
            StageMemoryError: a stage ran out of memory.
            PipelineError: the start failed for another reason, or was cancelled.
        """

    def cancel(self) -> None:
        """End a `start` that is under way, and every later one, within seconds. Any thread may call this."""

    def failure(self) -> TDPipeError | None:
        """Return why no further pipeline can be started, or None. Any thread may call this."""

    def close(self) -> None:
        """Free what the host holds beyond its pipelines. Repeated calls have no effect."""
