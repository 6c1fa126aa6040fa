from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from tdpipe.core.errors import ModelError
from tdpipe.model.attention.sdpa import SdpaAttention
from tdpipe.model.description import describe_model
from tdpipe.model.loader import load_stage
from tests.support.checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tdpipe.model.stage_model import StageModel


def load(
    path: Path, layers: range, *, first: bool, last: bool, dtype: torch.dtype = torch.float32
) -> StageModel:
    return load_stage(
        describe_model(path),
        layers,
        first=first,
        last=last,
        dtype=dtype,
        device=torch.device("cpu"),
        attention=SdpaAttention(),
    )


def weights(model: StageModel) -> int:
    parts = (model._body, model._norm, model._head)
    return sum({id(p): p.numel() for part in parts for p in part.parameters()}.values())


def change_tensors(path: Path, name: str, tensor: torch.Tensor | None) -> None:
    file = path / "model.safetensors"
    tensors = load_file(file)
    del tensors[name]
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", ["llama", "qwen2-tied", "gemma2"])
def test_a_stage_holds_its_own_weights_and_no_others(tmp_path: Path, kind: str) -> None:
    path = tiny_checkpoint(tmp_path, kind)
    sizes = describe_model(path).sizes
    whole = weights(load(path, range(5), first=True, last=True))
    first = weights(load(path, range(2), first=True, last=False))
    middle = weights(load(path, range(2, 4), first=False, last=False))
    last = weights(load(path, range(4, 5), first=False, last=True))
    shared = sizes.vocab_size * sizes.hidden_size if sizes.tied else 0
    assert first + middle + last == whole + shared
    assert middle < first


def test_a_stage_loads_without_the_tensors_of_others(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path)
    change_tensors(path, "model.layers.4.mlp.up_proj.weight", None)
    load(path, range(2), first=True, last=False)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("llama", "model.layers.4.mlp.up_proj.weight"),
        ("llama", "model.norm.weight"),
        ("llama", "lm_head.weight"),
        ("qwen2-tied", "model.embed_tokens.weight"),
        ("qwen2", "model.layers.4.self_attn.k_proj.bias"),
    ],
)
def test_a_missing_tensor_is_refused_instead_of_initialised(
    tmp_path: Path, kind: str, name: str
) -> None:
    path = tiny_checkpoint(tmp_path, kind)
    change_tensors(path, name, None)
    with pytest.raises(ModelError, match="missing keys: "):
        load(path, range(4, 5), first=False, last=True)


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path)
    change_tensors(path, "model.layers.0.mlp.up_proj.weight", torch.zeros(7, 64))
    with pytest.raises(ModelError, match="copy the checkpoint again") as refusal:
        load(path, range(2), first=True, last=False)
    assert "\n" not in str(refusal.value)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(path, range(2), first=True, last=False)


def test_weights_are_converted_to_the_requested_type(tmp_path: Path) -> None:
    model = load(tiny_checkpoint(tmp_path), range(5), first=True, last=True, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.head(torch.zeros(1, 64, dtype=torch.bfloat16)).dtype == torch.float32
