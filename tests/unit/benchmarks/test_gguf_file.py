from __future__ import annotations

import numpy as np
import pytest
from benchmarks.systems.gguf_file import gguf_name, interleave_halves


def test_the_halves_of_each_head_are_interleaved() -> None:
    weight = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert interleave_halves(weight, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.layers.11.self_attn.o_proj.weight", "blk.11.attn_output.weight"),
        ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
    ],
)
def test_tensors_get_their_gguf_names(name: str, expected: str) -> None:
    assert gguf_name(name) == expected
