"""Sizes of the models that can be simulated: known models by name, any other model by its config.json.

A simulation needs no weights. `describe_model` is for checkpoints that are served: it requires weights and imports
transformers, which takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdpipe.core.errors import SettingsError
from tdpipe.core.model_sizes import ModelSizes

if TYPE_CHECKING:
    from collections.abc import Mapping

BFLOAT16_BYTES = 2
"""Bytes per number: simulated weights, KV cache and activations are in bfloat16."""

KNOWN = (
    ModelSizes("llama-2-13b", 40, 5120, 13824, 40, 40, 128, 32000),
    ModelSizes("llama-2-70b", 80, 8192, 28672, 64, 8, 128, 32000),
    ModelSizes("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, 128256),
    ModelSizes("llama-3.1-70b", 80, 8192, 28672, 64, 8, 128, 128256),
    ModelSizes("mistral-7b", 32, 4096, 14336, 32, 8, 128, 32768),
    ModelSizes("qwen2.5-7b", 28, 3584, 18944, 28, 4, 128, 152064),
    ModelSizes("qwen2.5-14b", 48, 5120, 13824, 40, 8, 128, 152064),
    ModelSizes("qwen2.5-32b", 64, 5120, 27648, 40, 8, 128, 152064),
    ModelSizes("qwen2.5-72b", 80, 8192, 29568, 64, 8, 128, 152064),
    ModelSizes("qwen3-32b", 64, 5120, 25600, 64, 8, 128, 151936),
)


def find_model(name: str) -> ModelSizes:
    """Return the known model of that name, in upper or lower case.

    Raises:
        SettingsError: There is no such model.
    """
    for sizes in KNOWN:
        if sizes.name == name.lower():
            return sizes
    names = ", ".join(sizes.name for sizes in KNOWN)
    raise SettingsError(
        "--model",
        f"no model called {name!r}",
        f"known are {names}; or give the directory of a checkpoint",
    )


def load_model_sizes(model: str) -> ModelSizes:
    """Return the sizes of the model in a checkpoint's directory, or of a known model.

    Args:
        model: The directory or the name.

    Raises:
        SettingsError: It is neither, or the directory's config.json cannot be used.
    """
    directory = Path(model)
    if not directory.is_dir():
        return find_model(model)
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        problem = f"{file} cannot be read: {error}"
        raise SettingsError("--model", problem, "give the directory of a checkpoint") from error
    if not isinstance(config, dict):
        raise SettingsError("--model", f"{file} is no object", "give the directory of a checkpoint")
    return sizes_of_config(config, directory.resolve().name)


def sizes_of_config(config: Mapping[str, Any], name: str) -> ModelSizes:
    """Return the sizes of a model from the content of its config.json.

    Args:
        config: The config of a Llama-like model.
        name: The name that the model gets.

    Raises:
        SettingsError: A size is missing or invalid, or the model has experts, of whose weights a step reads only some.
    """
    experts = next((key for key in config if "experts" in key and config[key]), None)
    if experts is not None:
        raise SettingsError(
            "--model", f"{name} has experts ({experts})", "simulate a dense model instead"
        )
    heads = _size(config, name, "num_attention_heads")
    hidden_size = _size(config, name, "hidden_size")
    return ModelSizes(
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
