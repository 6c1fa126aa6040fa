"""Converts a Llama checkpoint of safetensors to GGUF, the format of llama.cpp, without a tokenizer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

_PARTS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(checkpoint: Path, file: Path, dtype: str) -> None:
    """Write the weights of `checkpoint` to `file`.

    Args:
        checkpoint: Directory that `random_llama` wrote.
        file: GGUF file to write.
        dtype: Data type of the matrices, float32 or bfloat16. Norms are float32, as llama.cpp requires.
    """
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "llama")
    _describe(writer, config)
    for name, weight in load_file(checkpoint / "model.safetensors").items():
        kind = ggml_type(dtype if weight.ndim > 1 else "float32")
        rotated = _rotated_heads(name, config)
        ordered = interleave_halves(weight, rotated) if rotated else weight
        writer.add_tensor(gguf_name(name), gguf.quantize(ordered, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ggml_type(dtype: str) -> GGMLQuantizationType:
    """Return ggml's type for float32 or bfloat16."""
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType.BF16 if dtype == "bfloat16" else GGMLQuantizationType.F32


def gguf_name(name: str) -> str:
    """Return the GGUF name of a checkpoint's tensor."""
    part, suffix = name.rsplit(".", 1)
    if not part.startswith("model.layers."):
        return f"{_PARTS[part]}.{suffix}"
    layer, part = part.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{_PARTS[part]}.{suffix}"


def interleave_halves(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Interleave the two halves of each head in a [heads * width, inputs] matrix.

    transformers rotates element i of a head with element i + width / 2, llama.cpp with its neighbour.
    """
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _describe(writer: Any, config: dict[str, Any]) -> None:  # noqa: ANN401 - gguf is untyped
    heads = config["num_attention_heads"]
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _rotated_heads(name: str, config: dict[str, Any]) -> int:
    """Return the number of heads of a query or key projection, and 0 for other tensors."""
    if ".q_proj." in name:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if ".k_proj." in name else 0
