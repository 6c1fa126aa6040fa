"""Makes the policy that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.scheduling.policies.adaptive import AdaptivePolicy
from tdpipe.scheduling.policies.hybrid import HybridPolicy
from tdpipe.scheduling.policies.latency_targets import LatencyTargets
from tdpipe.scheduling.policies.reference import ReferencePolicy
from tdpipe.scheduling.policies.separate import SeparatePolicy
from tdpipe.scheduling.policies.temporal import TemporalPolicy
from tdpipe.scheduling.policies.throttled import ThrottledPolicy

if TYPE_CHECKING:
    from tdpipe.core.settings import SchedulerSettings
    from tdpipe.scheduling.policy import Policy


def make_policy(settings: SchedulerSettings) -> Policy:
    """Return the policy that the settings name, with its parameters."""
    budget = settings.token_budget
    match settings.policy:
        case "adaptive":
            targets = LatencyTargets(settings.ttft_target, settings.tpot_target)
            return AdaptivePolicy(budget, targets)
        case "temporal":
            return TemporalPolicy(budget, settings.forecast_margin, settings.switch_hysteresis)
        case "hybrid":
            return HybridPolicy(budget)
        case "throttled":
            return ThrottledPolicy(budget)
        case "separate":
            return SeparatePolicy(budget)
        case "reference":
            return ReferencePolicy()
