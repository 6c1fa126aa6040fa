from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tdpipe.model.attention.cpu.backend import CpuAttention, InstructionSet
from tdpipe.model.attention.sdpa import SdpaAttention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tdpipe.model.attention import AttentionBackend


def _cpu_attention(instruction_set: InstructionSet) -> CpuAttention:
    try:
        return CpuAttention(instruction_set)
    except ValueError as unsupported:
        pytest.skip(str(unsupported))


@pytest.fixture(params=[*InstructionSet], ids=lambda one: one.name.lower())
def cpu_attention(request: pytest.FixtureRequest) -> CpuAttention:
    """The C kernel in every variant that this CPU supports."""
    return _cpu_attention(request.param)


@pytest.fixture(
    params=["sdpa", *InstructionSet], ids=lambda one: str(getattr(one, "name", one)).lower()
)
def backend(request: pytest.FixtureRequest) -> AttentionBackend:
    """Every backend, with the C kernel in every variant that this CPU supports."""
    return SdpaAttention() if request.param == "sdpa" else _cpu_attention(request.param)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Set one thread and restore the number afterwards. Tests that need more threads set them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
