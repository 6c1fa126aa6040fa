"""The checkpoints that are supported: those whose features are all tested to equal transformers.

A feature that stages do not implement would change the output without an error, so whatever is not on these lists is
refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tdpipe.core.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

FAMILIES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
}
"""Supported values of `model_type` in config.json, and the class of transformers for each."""
_SUPPORTED_LAYER_TYPES = ("full_attention", "sliding_attention")
_FAMILIES_WITH_LAYER_TYPES = ("qwen2", "qwen3", "gemma2")
_SUPPORTED_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Types of rope that depend only on a token's position. `dynamic` and `longrope` depend on the longest sequence of a
batch too."""
_UNSUPPORTED_FIELDS = {
    "quantization_config": "quantized weights are not supported; serve the unquantized checkpoint",
    "is_encoder_decoder": "encoder-decoder models are not supported; serve a decoder",
    "num_kv_shared_layers": "KV shared across layers is not supported; serve another model",
    "use_bidirectional_attention": "attention must be causal; serve another model",
}


def check_supported(path: Path, config: dict[str, Any]) -> None:
    """Refuse a checkpoint with a feature that stages do not implement.

    Args:
        path: directory of the checkpoint, for the message.
        config: content of its config.json.

    Raises:
        ModelError: the checkpoint has such a feature. The message names it and what is supported.
    """

    def refuse(problem: str) -> None:
        raise ModelError(f"model.path: {path}: {problem}")

    family = config.get("model_type")
    if family not in FAMILIES:
        refuse(f"models of type {family} are not supported; serve one of {', '.join(FAMILIES)}")
    for field, problem in _UNSUPPORTED_FIELDS.items():
        if config.get(field):
            refuse(problem)
    supported = FAMILIES[str(family)]
    architectures = config.get("architectures") or [supported]
    if supported not in architectures:
        refuse(f"it is a {architectures[0]}, which generates no text; serve a {supported}")
    if "AutoModelForCausalLM" in (config.get("auto_map") or {}):
        refuse(
            "it has its own code (auto_map), which is not run; serve a checkpoint without auto_map"
        )
    layer_types = set(config.get("layer_types") or ())
    if unknown := sorted(layer_types.difference(_SUPPORTED_LAYER_TYPES)):
        refuse(f"layers of type {', '.join(unknown)} are not supported; serve another model")
    if len(layer_types) > 1 and family not in _FAMILIES_WITH_LAYER_TYPES:
        refuse(f"transformers' {family} ignores layer_types; serve another model")
    if (rope := _rope_type(config)) not in _SUPPORTED_ROPE_TYPES:
        refuse(f"rope type {rope} is not supported; use one of {', '.join(_SUPPORTED_ROPE_TYPES)}")


def _rope_type(config: dict[str, Any]) -> str:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return str(rope.get("rope_type") or rope.get("type") or "default")
