"""What the engine sees of a pipeline, wherever its stages live.

The engine submits steps and polls for results; how stages are hosted and what messages travel over
is behind this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tdpipe.core.capacity import Capacity
    from tdpipe.core.step import Step, StepOutput


@dataclass(frozen=True, slots=True)
class StageDevice:
    """What a stage computes with."""

    name: str
    """Of the device, for people: `NVIDIA L20`."""
    kind: str
    """As torch names it: `cuda` or `cpu`."""
    dtype: str
    """Of weights, activations and KV cache, as torch names it."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """A step that every stage has executed."""

    output: StepOutput
    busy: tuple[float, ...]
    """[stages] seconds that each stage computed for it."""


class Pipeline(Protocol):
    """A running pipeline. All but `wake` are called by one thread."""

    stages: int
    capacity: Capacity
    devices: tuple[StageDevice, ...]
    """[stages]."""

    def submit(self, step: Step) -> None:
        """Hand a step to every stage, which execute steps in the order of submission.

        Never blocks.
        """

    def poll(self, timeout: float | None) -> list[StepResult]:
        """Steps completed since the last call, in order.

        Waits up to `timeout` seconds (None: for ever) for at least one; returns [] when the time is
        up or `wake` was called.

        Raises:
            PipelineError: a stage failed, with its own traceback; or no result came for
                `pipeline.step_timeout`.
        """

    def wake(self) -> None:
        """Make a blocked or the next `poll` return at once; callable from any thread."""

    def close(self) -> None:
        """End the stages and free all they hold; idempotent and bounded in seconds."""
