"""The policy of a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tdpipe.scheduling.policies.hybrid import HybridPolicy
from tdpipe.scheduling.policies.temporal import TemporalPolicy

if TYPE_CHECKING:
    from tdpipe.core.settings import SchedulerSettings
    from tdpipe.scheduling.policy import Policy


def make_policy(settings: SchedulerSettings) -> Policy[Any]:
    """The policy that the settings name, with its parameters."""
    if settings.policy == "hybrid":
        return HybridPolicy(settings.token_budget)
    return TemporalPolicy(
        settings.token_budget, settings.forecast_margin, settings.switch_hysteresis
    )
