"""The cost model that a profile file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.scheduling.cost_model import CostModel, MixingCost, StageCost

if TYPE_CHECKING:
    from tdpipe.core.profile import Profile


def profiled_cost(profile: Profile) -> CostModel:
    """What steps cost on the pipeline that was measured."""
    stages = tuple(
        StageCost(
            np.array(stage.tokens, dtype=np.int32),
            np.array(stage.seconds, dtype=np.float64),
            stage.per_kv_token,
            stage.per_sampled_token,
        )
        for stage in profile.stages
    )
    mixing = MixingCost(profile.mixing.seconds, profile.mixing.decode_context)
    return CostModel(stages, mixing, profile.chunk_tile)
