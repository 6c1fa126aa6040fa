"""Cost of tensor parallelism, for comparison with pipelines: all GPUs share every layer and synchronise in it twice.

Unknown costs are assumed in favour of tensor parallelism, so that a pipeline's advantage is no artefact: shards lose no
efficiency, the fixed time of a layer is divided like its work, and gathering the head's logits costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tdpipe.scheduling.cost_model import CostModel, StageCost
from tdpipe.simulation.known_models import BFLOAT16_BYTES
from tdpipe.simulation.roofline import kv_memory_bytes

if TYPE_CHECKING:
    from tdpipe.core.model_sizes import ModelSizes
    from tdpipe.core.step import FloatArray, IntArray
    from tdpipe.simulation.hardware import Hardware
    from tdpipe.simulation.profile_table import TimeTable

SHARD_EFFICIENCY = 1.0
"""Speed of a GPU's share of a matrix product relative to the whole product; narrower matrices fill a GPU less."""
_ALL_REDUCES_PER_LAYER = 2
"""One after attention and one after the MLP."""


def divides_heads(sizes: ModelSizes, gpus: int) -> bool:
    """Return whether the GPUs get equal shares of the heads, as engines require.

    KV heads are divided among the GPUs, or each is copied to the same number of GPUs.
    """
    smaller, larger = sorted((gpus, sizes.kv_heads))
    return sizes.heads % gpus == 0 and larger % smaller == 0


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
    """Return the cost of steps on GPUs that share every layer, as a single stage.

    Args:
        hardware: The kind of GPU.
        gpus: The number of GPUs, at least 1.
        layers: The number of layers of the model.
        hidden_size: The hidden size of the model.
        table: The times of the whole model on one GPU, measured or from the roofline.
        per_context: Seconds per KV token that one GPU would take to read the KV of all layers and heads.
        kv_heads: The number of KV heads of the model; if there are more GPUs, some read copies of the same KV.
        shard_efficiency: The speed of a GPU's share of a product relative to the whole product.
    """
    compute = table.seconds / (gpus * shard_efficiency)
    exchange = (
        layers
        * _ALL_REDUCES_PER_LAYER
        * all_reduce_seconds(hardware, gpus, hidden_size, table.tokens)
    )
    per_shard = per_context / min(gpus, kv_heads)
    return CostModel((StageCost(table.tokens, compute + exchange, per_shard),))


def all_reduce_seconds(
    hardware: Hardware, gpus: int, hidden_size: int, tokens: IntArray
) -> FloatArray:
    """Return [n] seconds of a ring all-reduce of the activations of [n] `tokens`.

    The ring takes 2 * (gpus - 1) steps, in each of which every GPU sends its share to the next one.
    """
    steps = 2 * (gpus - 1)
    share = tokens.astype(np.float64) * hidden_size * BFLOAT16_BYTES / gpus
    return steps * (hardware.peer_latency + share / hardware.peer_bandwidth)


def tensor_parallel_kv_tokens(
    hardware: Hardware,
    sizes: ModelSizes,
    gpus: int,
    utilisation: float = 0.9,
    option: str = "--hardware",
) -> int:
    """Return the number of tokens whose KV fits GPUs that share every layer, the embedding and the head.

    A KV head is not divided among GPUs.

    Args:
        hardware: The kind of GPU.
        sizes: The sizes of the model.
        gpus: The number of GPUs, at least 1.
        utilisation: The share of a GPU's memory that may be used.
        option: The option that the GPUs were given by, for error messages.

    Raises:
        SettingsError: The weights do not fit.
    """
    weights = BFLOAT16_BYTES * sizes.parameters / gpus
    kv_memory = kv_memory_bytes(hardware, sizes, weights, utilisation, option)
    return int(kv_memory * min(gpus, sizes.kv_heads) / sizes.kv_bytes(BFLOAT16_BYTES))
