"""Writes a random Llama of any size in bfloat16, a file per layer, as far as room and time allow.

Speed depends on shapes alone, so nothing has to be downloaded. Layers come one after the other, so a model that has no
room or takes too long to write ends up with fewer layers instead of failing.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import transformers
from safetensors.torch import save_file

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from benchmarks.gpu_check.scale import Scale

_FIRST_LAYER = "model.layers.0."
_SPREAD = 0.02
"""Standard deviation of all matrices."""


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint that was written."""

    layers: int
    size: int
    """Bytes of all tensors."""
    seconds: float


def write_llama(path: Path, scale: Scale, layers: int, device: torch.device, end: float) -> Written:
    """Write a checkpoint into `path`, with fewer layers if time runs out.

    Args:
        path: an existing directory.
        scale: has the model's sizes.
        layers: maximum number of layers.
        device: makes the random numbers.
        end: no layer begins after this time, in seconds of `time.monotonic`.

    Raises:
        TimeoutError: the time was too short for `scale.min_layers`.
    """
    began = time.monotonic()
    names: dict[str, str] = {}
    size = 0

    def write(file: str, shapes: dict[str, torch.Size]) -> None:
        nonlocal size
        tensors = {name: _random(shape, device) for name, shape in shapes.items()}
        save_file(tensors, path / file, metadata={"format": "pt"})
        names.update(dict.fromkeys(tensors, file))
        size += sum(each.nbytes for each in tensors.values())

    shapes = _shapes(_config(scale, 1))
    layer_shapes = {name: shape for name, shape in shapes.items() if name.startswith(_FIRST_LAYER)}
    write("ends.safetensors", {name: shapes[name] for name in shapes.keys() - layer_shapes.keys()})
    written = 0
    while written < layers and time.monotonic() < end:
        prefix = f"model.layers.{written}."
        own = {
            prefix + name.removeprefix(_FIRST_LAYER): shape for name, shape in layer_shapes.items()
        }
        write(f"layer-{written:03}.safetensors", own)
        written += 1
    if written < scale.min_layers:
        raise TimeoutError(f"only {written} layers were written in time, {scale.min_layers} needed")
    _config(scale, written).save_pretrained(path)
    index = {"metadata": {"total_size": size}, "weight_map": names}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return Written(written, size, time.monotonic() - began)


def _config(scale: Scale, layers: int) -> transformers.LlamaConfig:
    sizes = scale.model
    return transformers.LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=scale.max_context,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=sizes.tied,
        dtype="bfloat16",
    )


def _shapes(config: transformers.LlamaConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    return {name: each.shape for name, each in model.named_parameters()}


def _random(shape: torch.Size, device: torch.device) -> Tensor:
    if len(shape) == 1:  # norms
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, dtype=torch.bfloat16, device=device) * _SPREAD).cpu()
