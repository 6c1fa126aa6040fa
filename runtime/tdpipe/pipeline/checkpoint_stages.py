"""The stages of a checkpoint.

The plan decides, before anything is loaded, which layers each stage holds, and later, from the free memory, how many KV
blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import SettingsError
from tdpipe.model.attention import make_backend
from tdpipe.model.device import resolve_dtype
from tdpipe.model.kv_cache import KVCache
from tdpipe.model.partition import balance_layers, check_partition
from tdpipe.pipeline.kv_budget import KVBudget
from tdpipe.stage.executor import StageExecutor

if TYPE_CHECKING:
    import torch

    from tdpipe.core.settings import CacheSettings, ModelSettings, Settings
    from tdpipe.model.description import ModelDescription
    from tdpipe.model.stage_model import StageModel


@dataclass(frozen=True, slots=True)
class CheckpointStages:
    """The `StageBuilder` of a checkpoint."""

    description: ModelDescription
    model: ModelSettings
    cache: CacheSettings
    partition: tuple[int, ...]
    """[stages] number of layers of each stage."""
    slots: int
    """Maximum number of sequences that hold KV cache at once."""
    max_context: int
    """Maximum number of tokens of a sequence. The KV blocks may hold fewer."""

    @classmethod
    def plan(cls, settings: Settings, description: ModelDescription) -> Self:
        """Decide the partition and the maximum context before anything is loaded.

        Raises:
            SettingsError: the model cannot be partitioned as requested, or its context is shorter than requested.
        """
        stages, given = settings.pipeline.stages, settings.pipeline.partition
        partition = (
            balance_layers(description.sizes, stages)
            if given is None
            else check_partition(given, description.sizes, stages)
        )
        max_context = settings.model.max_context or description.max_context
        if max_context > description.max_context:
            raise SettingsError(
                "model.max_context",
                f"{max_context} is more than the model's {description.max_context}",
                "set at most that, or remove the setting",
            )
        return cls(
            description,
            settings.model,
            settings.cache,
            partition,
            slots=settings.scheduler.max_running,
            max_context=max_context,
        )

    @property
    def stages(self) -> int:
        return len(self.partition)

    def load(self, stage: int, device: torch.device, sharing: int) -> LoadedCheckpointStage:
        # The controller plans stages and loads none; transformers' modeling code takes it two seconds to import.
        from tdpipe.model.loader import load_stage

        start = sum(self.partition[:stage])
        attention = make_backend(self.model.attention, device)
        model = load_stage(
            self.description,
            range(start, start + self.partition[stage]),
            first=stage == 0,
            last=stage == self.stages - 1,
            dtype=resolve_dtype(self.model.dtype, device),
            device=device,
            attention=attention,
        )
        return LoadedCheckpointStage(self, model, stage, sharing, attention.name)

    def capacity(self, blocks: int) -> Capacity:
        block_size = self.cache.block_size
        if blocks * block_size < 2:
            raise SettingsError(
                "cache.memory" if self.cache.blocks is None else "cache.blocks",
                f"no room for the KV cache of any sequence: {blocks} blocks of {block_size} tokens",
                "raise it, free memory or use more stages",
            )
        return Capacity(blocks, block_size, self.slots, self.max_context)


class LoadedCheckpointStage:
    """One stage of `plan` with its weights.

    Args:
        plan: plan of all stages.
        model: layers of this stage.
        stage: number of this stage.
        sharing: number of stages that share the device's memory, including this one.
        attention: name of the attention backend.
    """

    def __init__(
        self, plan: CheckpointStages, model: StageModel, stage: int, sharing: int, attention: str
    ) -> None:
        self._plan = plan
        self._model = model
        self._stage = stage
        self._sharing = sharing
        self.hidden_size = model.hidden_size
        self.dtype = model.dtype
        self.device = model.device
        layers = f"layers {model.layers.start}-{model.layers.stop - 1}"
        dtype = str(model.dtype).removeprefix("torch.")
        self.name = f"{layers} ({dtype}, {attention} attention)"

    def fitting_blocks(self) -> int:
        cache = self._plan.cache
        layer_bytes = self._plan.description.sizes.layer_kv_bytes(self.dtype.itemsize)
        token_bytes = len(self._model.layers) * layer_bytes
        sequence_blocks = -(-self._plan.max_context // cache.block_size)
        budget = KVBudget(cache, useful_blocks=self._plan.slots * sequence_blocks)
        return budget.blocks(cache.block_size * token_bytes, self.device, self._sharing)

    def executor(self, blocks: int) -> StageExecutor:
        kv = KVCache(
            self._plan.description.sizes,
            self._model.layers,
            blocks=blocks,
            block_size=self._plan.cache.block_size,
            dtype=self.dtype,
            device=self.device,
        )
        return StageExecutor(
            self._model,
            kv,
            slots=self._plan.slots,
            # Block tables for a longer context than the blocks can hold would waste memory.
            max_context=min(self._plan.max_context, blocks * kv.block_size),
            first=self._stage == 0,
            last=self._stage == self._plan.stages - 1,
        )
