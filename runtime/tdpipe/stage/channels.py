"""What a stage's loop needs of the outside, as interfaces.

The loop is the same in a Ray actor and in a thread of a test; the pipeline package decides what the
messages travel over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.core.step import StageReport, Step, TokenFeedback


class ControlChannel(Protocol):
    """Steps from the controller, reports to it."""

    def receive(self) -> Step | None:
        """The next step, in order of issue; blocks. None means that the loop shall end."""

    def receive_ready(self) -> Step | None:
        """The next step if one is there; never blocks."""

    def report(self, report: StageReport) -> None:
        """Tell the controller that a step is done; never blocks on the controller."""


class ActivationChannel(Protocol):
    """Hidden states between neighbouring stages.

    Both sides derive the shape [tokens, hidden] from the step, so no metadata travels.
    """

    def send(self, hidden: Tensor) -> None:
        """Pass the activations on. The channel keeps them until they have left; the caller must not overwrite them."""

    def expect(self, tokens: int) -> None:
        """Begin to receive the next step's activations, which `receive` will ask for; never blocks."""

    def receive(self, tokens: int) -> Tensor:
        """[tokens, hidden] activations of the next step; blocks."""


class FeedbackChannel(Protocol):
    """Sampled tokens from the last stage to stage 0."""

    def send(self, feedback: TokenFeedback) -> None:
        """Never blocks."""

    def receive(self) -> TokenFeedback:
        """The next feedback, in order of steps; blocks."""

    def receive_ready(self) -> TokenFeedback | None:
        """The next feedback if one is there; never blocks."""
