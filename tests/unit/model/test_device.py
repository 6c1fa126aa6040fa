from __future__ import annotations

import pytest
import torch

from tdpipe.core.errors import SettingsError
from tdpipe.model.device import resolve_device, resolve_dtype

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "available", "expected"),
    [("auto", True, GPU), ("auto", False, CPU), ("cpu", True, CPU), ("cuda", True, GPU)],
)
def test_auto_is_cuda_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch, name: str, *, available: bool, expected: torch.device
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device(name) == expected


def test_missing_cuda_is_refused_with_cpu_as_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=r"model\.device: .*; use cpu$"):
        resolve_device("cuda")


@pytest.mark.parametrize("supported", [True, False])
def test_auto_is_bfloat16_on_gpus_that_compute_in_it_and_never_on_cpus(
    monkeypatch: pytest.MonkeyPatch, *, supported: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)
    on_gpu = torch.bfloat16 if supported else torch.float32
    assert (resolve_dtype("auto", GPU), resolve_dtype("auto", CPU)) == (on_gpu, torch.float32)
    assert resolve_dtype("bfloat16", CPU) is torch.bfloat16
