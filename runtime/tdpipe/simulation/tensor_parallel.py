"""What pipelines are compared with: one model on all GPUs at once, meeting twice a layer.

What is not known is taken in favour of tensor parallelism, so that what a pipeline wins is not an artefact: shards lose
no efficiency, a layer's fixed time is divided like its work, and gathering the head's logits costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.simulation.known_models import BFLOAT16_BYTES
from tdpipe.simulation.roofline import kv_room

if TYPE_CHECKING:
    from tdpipe.core.model_sizes import ModelSizes
    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.simulation.hardware import Hardware
    from tdpipe.simulation.profile_table import TimeTable

SHARD_EFFICIENCY = 1.0
"""Speed of a product that is a GPU's share against the whole one's; narrower matrices fill a GPU less."""
_ALL_REDUCES = 2
"""A layer: after attention and after the MLP."""


def divides_heads(shape: ModelSizes, gpus: int) -> bool:
    """Whether so many GPUs get equal shares of the heads, whole or copies of KV heads: engines start with no other."""
    few, many = sorted((gpus, shape.kv_heads))
    return shape.heads % gpus == 0 and many % few == 0


def tensor_parallel_cost(
    hardware: Hardware,
    gpus: int,
    layers: int,
    hidden_size: int,
    table: TimeTable,
    *,
    per_context: float,
    kv_heads: int,
    shard_efficiency: float = SHARD_EFFICIENCY,
) -> CostModel:
    """The cost of steps on `gpus` GPUs that share every layer: one stage.

    Args:
        hardware: the GPUs.
        gpus: at least 1.
        layers: of the model.
        hidden_size: of the model.
        table: times of the whole model on one GPU, measured or from the roofline.
        per_context: seconds per KV token that one GPU would take to read the KV of all layers and heads.
        kv_heads: of the model: more GPUs than these read KV of which others have a copy.
        shard_efficiency: speed of a share of a product against the whole one's.
    """
    compute = table.seconds / (gpus * shard_efficiency)
    exchange = layers * _ALL_REDUCES * all_reduce_seconds(hardware, gpus, hidden_size, table.tokens)
    per_shard = per_context / min(gpus, kv_heads)
    return CostModel((StageCost(table.tokens, compute + exchange, per_shard),))


def all_reduce_seconds(
    hardware: Hardware, gpus: int, hidden_size: int, tokens: IntArray
) -> FloatArray:
    """[n] seconds of a ring all-reduce of the activations of [n] `tokens`.

    It has 2 * (gpus - 1) steps, in each of which every GPU sends its share to the next.
    """
    steps = 2 * (gpus - 1)
    share = tokens.astype(np.float64) * hidden_size * BFLOAT16_BYTES / gpus
    return steps * (hardware.peer_latency + share / hardware.peer_bandwidth)


def tensor_parallel_kv_tokens(
    hardware: Hardware,
    shape: ModelSizes,
    gpus: int,
    utilisation: float = 0.9,
    option: str = "--hardware",
) -> int:
    """Tokens whose KV fits `gpus` GPUs that share every layer, the embedding and the head; a KV head is not divided.

    Args:
        hardware: the GPUs.
        shape: of the model.
        gpus: at least 1.
        utilisation: share of a GPU's memory that may be used.
        option: that the GPUs were given by, for messages.

    Raises:
        SettingsError: the weights do not fit.
    """
    room = kv_room(hardware, shape, BFLOAT16_BYTES * shape.parameters / gpus, utilisation, option)
    return int(room * min(gpus, shape.kv_heads) / shape.kv_bytes(BFLOAT16_BYTES))
