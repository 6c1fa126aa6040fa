"""Linear layers whose weights are packed in the layout that oneDNN computes with.

On a CPU, torch converts the weights to this layout in every product. A decode batch has so few rows that the conversion
can cost as much as the product: with weights packed once, at loading, products of 8 to 64 rows took 0.5 to 0.8 of the
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

_PACKED_BATCH_ROWS = 32
"""Number of rows of the products for which oneDNN chooses the layout."""


class PackedLinear(nn.Module):
    """A layer that computes the same as `linear`, for inference on a CPU.

    Args:
        linear: a layer whose dtype `can_pack` accepts. Its weight is copied, so it may be dropped afterwards.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001 - torch's compiler calls it too
            linear.weight.detach(), _PACKED_BATCH_ROWS
        )
        self._bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        """Return [..., out_features] from [..., in_features]."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            rows, self._weight, self._bias, "none", [], ""
        )
        return output


def can_pack(dtype: torch.dtype) -> bool:
    """Return whether oneDNN packs weights of this type on this CPU; bfloat16 needs AVX-512 or newer instructions."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - as above
    return dtype is torch.float32


def pack_linears(module: nn.Module) -> None:
    """Replace the linear layers within `module` that oneDNN can compute with packed ones."""
    for name, child in module.named_children():
        if type(child) is not nn.Linear:
            pack_linears(child)
        elif child.weight.device.type == "cpu" and can_pack(child.weight.dtype):
            setattr(module, name, PackedLinear(child))
