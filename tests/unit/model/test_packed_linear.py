"""Packed layers compute the same as torch's, and only CPU layers of a supported type are packed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tdpipe.model.packed_linear import PackedLinear, can_pack, pack_linears


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_products_are_those_of_the_layer(dtype: torch.dtype, bias: bool, rows: int) -> None:
    if not can_pack(dtype):
        pytest.skip(f"oneDNN packs no weights of {dtype} on this CPU")
    torch.manual_seed(0)
    linear = nn.Linear(48, 96, bias=bias, dtype=dtype)
    packed = PackedLinear(linear)
    inputs = torch.randn(1, rows, 48, dtype=dtype)
    tolerance = 2e-2 if dtype is torch.bfloat16 else 1e-5
    with torch.inference_mode():
        expected = linear(inputs)
        torch.testing.assert_close(packed(inputs), expected, rtol=tolerance, atol=tolerance)


def test_a_layer_that_a_cpu_cannot_pack_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    module = nn.Sequential(nn.Linear(48, 96, dtype=torch.bfloat16), nn.Linear(96, 48))
    pack_linears(module)
    assert type(module[0]) is nn.Linear
    assert isinstance(module[1], PackedLinear) is can_pack(torch.float32)


def test_layers_of_other_classes_and_types_are_left_alone() -> None:
    class LinearSubclass(nn.Linear):
        pass

    inner = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    module = nn.ModuleDict({"inner": inner, "subclass": LinearSubclass(4, 4)})
    module["float64"] = nn.Linear(4, 4, dtype=torch.float64)
    pack_linears(module)
    assert isinstance(inner[0], PackedLinear)
    assert type(module["subclass"]) is LinearSubclass
    assert type(module["float64"]) is nn.Linear
