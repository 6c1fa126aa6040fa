from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.known_models import KNOWN, find_model, load_model_sizes, sizes_of_config

if TYPE_CHECKING:
    from pathlib import Path

QWEN_32B: dict[str, Any] = {
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_attention_heads": 40,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
}


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("llama-2-13b", 13.016),
        ("llama-2-70b", 68.977),
        ("llama-3.1-8b", 8.030),
        ("llama-3.1-70b", 70.554),
        ("mistral-7b", 7.248),
        ("qwen2.5-7b", 7.616),
        ("qwen2.5-14b", 14.770),
        ("qwen2.5-32b", 32.764),
        ("qwen2.5-72b", 72.706),
        ("qwen3-32b", 32.762),
    ],
)
def test_a_known_model_has_the_parameters_that_its_checkpoint_has(
    name: str, billions: float
) -> None:
    sizes = find_model(name)
    assert sizes.parameters == pytest.approx(billions * 1e9, rel=1e-4)


def test_kv_takes_keys_and_values_of_every_kv_head_and_layer() -> None:
    assert find_model("llama-2-13b").kv_bytes(2) == 819_200
    assert find_model("Qwen2.5-32B").kv_bytes(2) == 262_144


def test_parameters_are_matrices_and_norms() -> None:
    sizes = find_model("llama-2-13b")
    matrices = sizes.layers * sizes.layer_weights + sizes.head_weights
    norms = (2 * sizes.layers + 1) * sizes.hidden_size
    assert matrices + sizes.head_weights + norms == sizes.parameters


def test_an_unknown_model_is_refused_with_the_names_that_are_known() -> None:
    with pytest.raises(SettingsError) as refused:
        find_model("gpt-5")
    assert refused.value.field == "--model"
    for sizes in KNOWN:
        assert sizes.name in str(refused.value)


def test_a_config_gives_the_same_sizes_as_the_known_model() -> None:
    assert sizes_of_config(QWEN_32B, "qwen2.5-32b") == find_model("qwen2.5-32b")


def test_a_config_without_kv_heads_has_one_for_each_head() -> None:
    config = {key: value for key, value in QWEN_32B.items() if key != "num_key_value_heads"}
    assert sizes_of_config(config, "m").kv_heads == 40


def test_a_config_may_have_heads_that_are_not_a_share_of_the_hidden_size() -> None:
    config = QWEN_32B | {"head_dim": 256, "tie_word_embeddings": True}
    sizes = sizes_of_config(config, "m")
    assert (sizes.head_dim, sizes.tied) == (256, True)
    assert sizes_of_config(QWEN_32B | {"head_dim": None}, "m").head_dim == 128


def test_a_tied_head_has_no_parameters_of_its_own() -> None:
    tied = sizes_of_config(QWEN_32B | {"tie_word_embeddings": True}, "m")
    assert tied.parameters == find_model("qwen2.5-32b").parameters - tied.head_weights


@pytest.mark.parametrize("value", [None, 0, "5120", 1.5])
@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_config_without_a_size_is_refused_by_the_name_of_what_it_lacks(
    key: str, value: object
) -> None:
    with pytest.raises(SettingsError, match=key):
        sizes_of_config(QWEN_32B | {key: value}, "m")


def test_a_model_of_experts_is_refused() -> None:
    with pytest.raises(SettingsError, match="num_local_experts"):
        sizes_of_config(QWEN_32B | {"num_local_experts": 8}, "m")


@pytest.mark.parametrize("content", ["[1]", "null", "7"])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(SettingsError, match=r"--model: .*config\.json is no object"):
        load_model_sizes(str(tmp_path))
