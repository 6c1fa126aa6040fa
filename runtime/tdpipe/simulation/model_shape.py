"""Sizes of a model's matrices, from which its weights, KV cache and work follow.

A simulation needs no checkpoint: a known model goes by its name, any other by its config.json. `describe_model` is for
checkpoints that shall be served; it wants weights there and imports transformers, which a simulation need not wait for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

BYTES = 2
"""Of a bfloat16 number: weights, KV cache and activations."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder with grouped-query attention and a gated MLP, as Llama's."""

    name: str
    layers: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool = False
    """The head's weights are the embedding's."""

    @property
    def layer_weights(self) -> int:
        """Elements of one layer's matrices."""
        attention = 2 * (self.heads + self.kv_heads) * self.head_dim
        return self.hidden_size * (attention + 3 * self.intermediate_size)

    @property
    def head_weights(self) -> int:
        """Elements of the head's matrix, and of the embedding's."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """All of them but biases, which some families have and which are less than a thousandth."""
        layers = self.layers * (self.layer_weights + 2 * self.hidden_size)
        return layers + self.hidden_size + self.head_weights * (1 if self.tied else 2)

    @property
    def weight_bytes(self) -> int:
        return BYTES * self.parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return self.layers * self.layer_kv_bytes_per_token

    @property
    def layer_kv_bytes_per_token(self) -> int:
        """Bytes of a token's keys and values in one layer."""
        return 2 * self.kv_heads * self.head_dim * BYTES

    @property
    def body_flops_per_token(self) -> int:
        """FLOPs of all layers' matrix products; attention's own come on top."""
        return 2 * self.layers * self.layer_weights

    @property
    def head_flops_per_token(self) -> int:
        """FLOPs of the head for a token that is sampled from."""
        return 2 * self.head_weights

    @property
    def activation_bytes_per_token(self) -> int:
        """Bytes that a stage sends to the next."""
        return BYTES * self.hidden_size


KNOWN = (
    ModelShape("llama-2-13b", 40, 5120, 13824, 40, 40, 128, 32000),
    ModelShape("llama-2-70b", 80, 8192, 28672, 64, 8, 128, 32000),
    ModelShape("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, 128256),
    ModelShape("llama-3.1-70b", 80, 8192, 28672, 64, 8, 128, 128256),
    ModelShape("mistral-7b", 32, 4096, 14336, 32, 8, 128, 32768),
    ModelShape("qwen2.5-7b", 28, 3584, 18944, 28, 4, 128, 152064),
    ModelShape("qwen2.5-14b", 48, 5120, 13824, 40, 8, 128, 152064),
    ModelShape("qwen2.5-32b", 64, 5120, 27648, 40, 8, 128, 152064),
    ModelShape("qwen2.5-72b", 80, 8192, 29568, 64, 8, 128, 152064),
    ModelShape("qwen3-32b", 64, 5120, 25600, 64, 8, 128, 151936),
)


def find_shape(name: str) -> ModelShape:
    """The known model of that name, in upper or lower case.

    Raises:
        SettingsError: there is none.
    """
    for shape in KNOWN:
        if shape.name == name.lower():
            return shape
    names = ", ".join(shape.name for shape in KNOWN)
    raise SettingsError(
        "--model",
        f"no model called {name!r}",
        f"known are {names}; or give the directory of a checkpoint",
    )


def load_shape(model: str) -> ModelShape:
    """The shape of a checkpoint's directory, or of a known name.

    Raises:
        SettingsError: it is neither, or the directory's config.json cannot be used.
    """
    directory = Path(model)
    if not directory.is_dir():
        return find_shape(model)
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        problem = f"{file} cannot be read: {error}"
        raise SettingsError("--model", problem, "give a checkpoint's directory") from error
    if not isinstance(config, dict):
        raise SettingsError("--model", f"{file} is no object", "give a checkpoint's directory")
    return shape_of_config(config, directory.resolve().name)


def shape_of_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape of a checkpoint, from the content of its config.json.

    Args:
        config: of a Llama-like model.
        name: what to call it.

    Raises:
        SettingsError: a size is missing or is no size, or the model has experts, whose weights a step reads in part.
    """
    experts = next((key for key in config if "experts" in key and config[key]), None)
    if experts is not None:
        raise SettingsError(
            "--model", f"{name} has experts ({experts})", "simulate a dense model instead"
        )
    heads = _size(config, name, "num_attention_heads")
    hidden_size = _size(config, name, "hidden_size")
    return ModelShape(
        name,
        _size(config, name, "num_hidden_layers"),
        hidden_size,
        _size(config, name, "intermediate_size"),
        heads,
        _size(config, name, "num_key_value_heads", heads),
        _size(config, name, "head_dim", hidden_size // heads),
        _size(config, name, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _size(config: Mapping[str, Any], name: str, key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or value < 1:
        problem = f"config.json of {name} has {key}: {value!r}"
        raise SettingsError("--model", problem, "give a Llama-like checkpoint, or a known model")
    return value
