from __future__ import annotations

import pytest
import torch

from tdpipe.core.errors import SettingsError
from tdpipe.model.attention import make_backend


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("auto", "cpu", "cpu"),
        ("cpu", "cpu", "cpu"),
        ("sdpa", "cpu", "sdpa"),
        ("auto", "cuda", "sdpa"),
        ("sdpa", "cuda", "sdpa"),
    ],
)
def test_a_name_and_a_device_choose_the_backend(name: str, device: str, expected: str) -> None:
    assert make_backend(name, torch.device(device)).name == expected


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"model\.attention.*'flash'.*auto, sdpa or cpu"):
        make_backend("flash", torch.device("cpu"))


def test_the_cpu_kernel_is_refused_on_a_gpu() -> None:
    with pytest.raises(SettingsError, match="cannot compute attention on cuda"):
        make_backend("cpu", torch.device("cuda"))
