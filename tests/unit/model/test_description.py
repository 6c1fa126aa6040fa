from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tdpipe.core.errors import ModelError
from tdpipe.model.description import describe_model

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "vocab_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
}


def checkpoint(path: Path, weights: str = "model.safetensors", **changes: object) -> Path:
    (path / "config.json").write_text(json.dumps(CONFIG | changes))
    (path / weights).touch()
    return path


def test_a_checkpoint_is_described_from_its_config(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    found = describe_model(checkpoint(tmp_path))
    assert (found.sizes.layers, found.sizes.head_dim, found.sizes.kv_heads) == (4, 8, 2)
    assert found.eos_token_ids == (2, 7)
    assert 2 * found.sizes.layer_kv_bytes(4) == 2 * 2 * 2 * 8 * 4


def test_values_missing_in_config_are_the_familys_defaults(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, model_type="gemma2", architectures=["Gemma2ForCausalLM"])
    found = describe_model(path)
    assert (found.sizes.head_dim, found.sizes.tied) == (256, True)


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 2048),
        ({"type": "linear", "factor": 4.0}, 2048),
        # Qwen's recipe: the checkpoint keeps its original length.
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
        ({"rope_type": "yarn", "factor": 4.0}, 2048),
        # The length of this checkpoint is already scaled.
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            512,
        ),
        (None, 512),
    ],
)
def test_rope_scaling_extends_the_context(
    tmp_path: Path, scaling: dict[str, object] | None, context: int
) -> None:
    path = checkpoint(tmp_path, rope_scaling=scaling)
    assert describe_model(path).max_context == context


def test_end_tokens_are_those_given_without_the_default(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, eos_token_id=[5, 9])
    assert describe_model(path).eos_token_ids == (5, 9)
    (path / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert describe_model(path).eos_token_ids == (5, 7, 9)
    (path / "config.json").write_text(json.dumps({**CONFIG, "eos_token_id": None}))
    assert describe_model(path).eos_token_ids == (7,)


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"model_type": "mamba"}, "serve one of llama, mistral, qwen2, qwen3, gemma2"),
    ({"quantization_config": {"bits": 4}}, "serve the unquantized checkpoint"),
    ({"is_encoder_decoder": True}, "serve a decoder"),
    ({"num_kv_shared_layers": 2}, "shared across layers"),
    ({"use_bidirectional_attention": True}, "must be causal"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "serve a LlamaForCausalLM"),
    ({"auto_map": {"AutoModelForCausalLM": "modeling.Own"}}, "auto_map"),
    ({"layer_types": ["full_attention", "linear_attention"]}, "type linear_attention"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "ignores layer_types"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type dynamic"),
    ({"rope_parameters": {"rope_type": "longrope"}}, "rope type longrope"),
    ({"hidden_size": None}, "hidden_size"),
    ({"hidden_size": "wide"}, "hidden_size"),
]


@pytest.mark.parametrize(("changes", "problem"), REFUSED)
def test_an_unsupported_checkpoint_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem) as refusal:
        describe_model(checkpoint(tmp_path, **changes))
    assert str(refusal.value).startswith("model.path: ")
    assert "\n" not in str(refusal.value)


def test_pickled_weights_are_refused_with_a_command_that_converts_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"only pickled weights.*python -c .*save_pretrained"):
        describe_model(checkpoint(tmp_path, weights="pytorch_model.bin"))


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        describe_model(checkpoint(tmp_path, weights="README.md"))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        describe_model(tmp_path / "absent")


def test_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a directory"):
        describe_model(checkpoint(tmp_path) / "config.json")


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        describe_model(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_a_broken_config_is_refused(tmp_path: Path, content: str) -> None:
    (checkpoint(tmp_path) / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config\.json (cannot be read|is not a JSON object)"):
        describe_model(tmp_path)
