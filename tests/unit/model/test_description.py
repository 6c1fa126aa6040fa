from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tdpipe.core.errors import ModelError
from tdpipe.model.description import describe_model

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
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
    assert (found.layers, found.head_dim, found.kv_heads) == (4, 8, 2)
    assert found.eos_token_ids == (2, 7)
    assert found.kv_bytes_per_token(2, 4) == 2 * 2 * 2 * 8 * 4


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"model_type": "mamba"}, "serve one of llama"),
        ({"quantization_config": {"bits": 4}}, "plain decoder"),
        ({"hidden_size": None}, "incomplete"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_remedy(
    tmp_path: Path, changes: dict[str, object], remedy: str
) -> None:
    with pytest.raises(ModelError, match=remedy):
        describe_model(checkpoint(tmp_path, **changes))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="only pickled weights"):
        describe_model(checkpoint(tmp_path, weights="pytorch_model.bin"))


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such directory"):
        describe_model(tmp_path / "absent")


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        describe_model(tmp_path)
