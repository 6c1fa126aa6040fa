"""The channels that connect a stage's loop to the controller and to other stages, as interfaces.

The loop is the same in a Ray actor and in a thread; the pipeline package decides what the messages travel over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.core.step import StageReport, Step, TokenFeedback


class ControlChannel(Protocol):
    """Steps from the controller and reports to it."""

    def receive(self) -> Step | None:
        """Wait for the next step in the order of issue. None means that the loop must end."""

    def receive_ready(self) -> Step | None:
        """Return the next step if it has arrived; never block."""

    def report(self, report: StageReport) -> None:
        """Tell the controller that a step is done; never block on the controller."""


class ActivationChannel(Protocol):
    """Hidden states between neighbouring stages.

    Both sides derive the shape [T, hidden_size] from the step, so no metadata travels.
    """

    def send(self, hidden: Tensor) -> None:
        """Send the activations. The channel keeps them until they have left; the caller must not overwrite them."""

    def expect(self, tokens: int) -> None:
        """Start to receive a later step's activations, for which `receive` will be called; never block."""

    def receive(self, tokens: int) -> Tensor:
        """Wait for the next step's [tokens, hidden_size] activations."""


class FeedbackChannel(Protocol):
    """Sampled tokens from the last stage to the first."""

    def send(self, feedback: TokenFeedback) -> None:
        """Send the tokens of a step; never block."""

    def receive(self) -> TokenFeedback:
        """Wait for the next feedback in the order of steps."""

    def receive_ready(self) -> TokenFeedback | None:
        """Return the next feedback if it has arrived; never block."""
