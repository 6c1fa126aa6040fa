"""The sizes of a model's matrices, from which its weights, its KV cache and its work follow.

A checkpoint's description, a profile file and the simulator share this one type.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from pydantic import ConfigDict


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """A decoder with grouped-query attention and a gated MLP, such as Llama."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    name: str
    """Display name, which does not affect the sizes."""
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool = False
    """Whether the head shares the embedding's weights."""

    @property
    def layer_weights(self) -> int:
        """Number of elements of one layer's matrices."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_dim
        return self.hidden_size * (attention + 3 * self.intermediate_size)

    @property
    def head_weights(self) -> int:
        """Number of elements of the head's matrix; the embedding's matrix has as many."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """Number of parameters, without the biases of some families, which are less than a thousandth of it."""
        layers = self.layers * (self.layer_weights + 2 * self.hidden_size)
        return layers + self.hidden_size + self.head_weights * (1 if self.tied else 2)

    def layer_kv_bytes(self, dtype_bytes: int) -> int:
        """Bytes that a token's keys and values take in one layer."""
        return 2 * self.kv_heads * self.head_dim * dtype_bytes

    def kv_bytes(self, dtype_bytes: int) -> int:
        """Bytes that a token's keys and values take in all layers."""
        return self.layers * self.layer_kv_bytes(dtype_bytes)

    def same_sizes(self, other: ModelSizes) -> bool:
        """Whether a step takes the same time on both models, whose names and tied weights may differ."""
        return replace(self, name="", tied=False) == replace(other, name="", tied=False)
