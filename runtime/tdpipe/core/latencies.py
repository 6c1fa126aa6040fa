"""Latencies of the messages between controller and stages.

A profile file records these, and the simulator and the paced stages add them, so they share one type.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

_Seconds = Annotated[float, Field(ge=0.0)]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from sending a message to its arrival."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    step: _Seconds = 0.0
    """Seconds from the controller to stage 0."""
    activations: _Seconds = 0.0
    """Seconds from a stage to the next, independent of the number of tokens."""
    activation_token: _Seconds = 0.0
    """Additional seconds from a stage to the next for each token of the step."""
    feedback: _Seconds = 0.0
    """Seconds that sampled tokens take from the last stage to stage 0 and to the controller."""
