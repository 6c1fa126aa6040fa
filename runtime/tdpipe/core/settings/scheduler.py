"""Settings of the scheduler and of the length predictor that it relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from tdpipe.core.settings.problems import setting_problem
from tdpipe.core.settings.section import Section

_MIN_TRAINING_ROWS = 512


class SchedulerSettings(Section):
    """The scheduling policy and its parameters."""

    policy: Literal["adaptive", "temporal", "hybrid", "throttled", "separate", "reference"] = (
        "adaptive"
    )
    """`adaptive` composes each micro-batch by the costs; `temporal` separates prefill and decode in time; the others
    are baselines: `hybrid` mixes both in one token budget, `throttled` limits prefill by load and free KV,
    `separate` prefills first, `reference` follows the rules of the TD-Pipe paper."""
    token_budget: int = Field(default=512, ge=1)
    """Batch tokens of a micro-batch that contains prefill, for `adaptive` at most; longer prompts are chunked,
    except by `reference`, which prefills them whole."""
    max_running: int = Field(default=256, ge=1)
    """Maximum number of sequences that hold KV cache at once."""
    profile: Path | None = None
    """File of `tdpipe profile` with measured times of the stages. None measures a few steps at each start."""
    forecast_margin: float = Field(default=1.0, ge=0)
    """KV that is kept free beyond the forecast use, in standard deviations of the forecast."""
    switch_hysteresis: float = Field(default=1.0, ge=0)
    """Share of the cost of switching to prefill by which the loss from small decode batches must exceed it."""
    ttft_target: float | None = Field(default=None, gt=0)
    """Target for the seconds from a request's arrival to its first token, for `adaptive`. None sets no target."""
    tpot_target: float | None = Field(default=None, gt=0)
    """Target for the seconds between two tokens of a request, for `adaptive`. None sets no target."""

    @field_validator("ttft_target", "tpot_target")
    @classmethod
    def _needs_adaptive(cls, value: object, info: ValidationInfo) -> object:
        policy = info.data.get("policy")
        if value is not None and policy not in (None, "adaptive"):
            raise setting_problem(
                f"has no effect on {policy}", "leave it out or set scheduler.policy to adaptive"
            )
        return value

    @field_validator("forecast_margin", "switch_hysteresis")
    @classmethod
    def _needs_temporal(cls, value: object, info: ValidationInfo) -> object:
        if (policy := info.data.get("policy")) not in (None, "temporal"):
            raise setting_problem(
                f"has no effect on {policy}", "leave it out or set scheduler.policy to temporal"
            )
        return value


class PredictorSettings(Section):
    """The predictor of output lengths."""

    path: Path | None = None
    """File written by `tdpipe train-predictor`. None starts untrained."""
    training_rows: int = Field(default=4096, ge=0)
    """Number of finished requests that the predictor is trained on again while serving; 0 never trains it."""

    @field_validator("training_rows")
    @classmethod
    def _check_training_rows(cls, value: int) -> int:
        if 0 < value < _MIN_TRAINING_ROWS:
            raise setting_problem(
                f"must be 0 or at least {_MIN_TRAINING_ROWS}",
                f"got {value}, too few to learn from",
            )
        return value
