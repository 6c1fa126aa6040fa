from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.hardware import CATALOGUE, Hardware, parse_hardware


@given(st.integers(1, 64), st.sampled_from(CATALOGUE), st.booleans())
def test_a_number_and_a_name_are_that_many_gpus(
    count: int, hardware: Hardware, lower: bool
) -> None:
    name = hardware.name.lower() if lower else hardware.name
    assert parse_hardware(f"{count}x{name}") == (count, hardware)


def test_a_name_alone_is_one_gpu() -> None:
    assert parse_hardware("L20") == (1, CATALOGUE[0])


@pytest.mark.parametrize("text", ["4xV100", "4x", "", "x", "L20x4"])
def test_an_unknown_gpu_is_refused_with_the_known_names(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_hardware(text)
    assert refused.value.field == "--hardware"
    for hardware in CATALOGUE:
        assert hardware.name in str(refused.value)


def test_no_gpu_is_refused() -> None:
    with pytest.raises(SettingsError, match="no GPU"):
        parse_hardware("0xL20")


def test_every_entry_says_where_its_figures_are_from_and_has_them_in_their_units() -> None:
    assert len({hardware.name.lower() for hardware in CATALOGUE}) == len(CATALOGUE)
    for hardware in CATALOGUE:
        assert "NVIDIA" in hardware.source
        assert 16 * 2**30 < hardware.memory_bytes < 200 * 2**30
        assert 100 < hardware.flops / hardware.memory_bandwidth < 500
        assert hardware.peer_bandwidth < hardware.memory_bandwidth / 20
        assert 1e-6 <= hardware.peer_latency <= 1e-5
