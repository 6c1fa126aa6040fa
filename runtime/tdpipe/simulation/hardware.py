"""GPUs that a pipeline can be simulated on, with their vendors' figures.

A simulation is only useful if its inputs can be checked, so each entry names the source of its numbers. Links have the
bandwidth that NCCL's own planner assumes: what one direction carries while the other is in use as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tdpipe.core.errors import SettingsError

_MIB = 2**20
_COUNT_AND_NAME = re.compile(r"(\d+)\s*x\s*(.*)", re.IGNORECASE)
"""A number of GPUs and their name, such as 4xL20."""
_PCIE4, _PCIE5 = 24e9, 48e9
"""B/s that NCCL assumes for an x16 link (src/graph: 24.0 in its topology logs), three quarters of the raw rate.

Measured pairs reach 20.7 to 26 GB/s (RTX 4090 with peer access, both directions in use) and 50 to 56 GB/s.
"""
_PCIE_LATENCY = 2.5e-6
"""Seconds of one step of a ring over PCIe in NCCL's tuning table (hwLat: Ring, LL128)."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One GPU and its link to the others of its node."""

    name: str
    memory_bytes: int
    """Memory as nvidia-smi reports it: error correction takes a sixteenth of the GDDR6 of a data centre card."""
    memory_bandwidth: float
    """Peak bandwidth in B/s."""
    flops: float
    """Peak FLOP/s of dense bfloat16 products with float32 accumulation."""
    peer_bandwidth: float
    """B/s from GPU to GPU in each direction."""
    peer_latency: float
    """Seconds until a message to another GPU begins to arrive."""
    source: str
    aliases: tuple[str, ...] = ()
    """Other names of the same GPU."""


CATALOGUE = (
    Hardware(
        "L20",
        46068 * _MIB,
        864e9,
        119.5e12,
        _PCIE4,
        _PCIE_LATENCY,
        "NVIDIA's figures for the L20 as resellers list them (Tom's Hardware, 'H20, L20, and L2'); PCIe 4.0 x16",
    ),
    Hardware(
        "L40S",
        46068 * _MIB,
        864e9,
        362.05e12,
        _PCIE4,
        _PCIE_LATENCY,
        "NVIDIA L40S datasheet (PCIe 4.0 x16)",
    ),
    Hardware(
        "A10",
        23028 * _MIB,
        600e9,
        125e12,
        _PCIE4,
        _PCIE_LATENCY,
        "NVIDIA A10 datasheet (PCIe 4.0 x16)",
    ),
    Hardware(
        "RTX-4090",
        24564 * _MIB,
        1008e9,
        165.2e12,
        13e9,
        3e-6,
        "NVIDIA Ada GPU architecture whitepaper, appendix A; its driver gives no peer access, so the link runs "
        "through host memory: 26 GB/s in both directions together (tinygrad/open-gpu-kernel-modules#6), an empty "
        "all-reduce of 14 steps in 41 us (NVIDIA/nccl#1530)",
    ),
    Hardware(
        "A100-PCIe",
        81920 * _MIB,
        1935e9,
        312e12,
        _PCIE4,
        _PCIE_LATENCY,
        "NVIDIA A100 datasheet, 80 GB PCIe (PCIe 4.0 x16, no NVLink bridge)",
    ),
    Hardware(
        "A100-PCIe-40GB",
        40960 * _MIB,
        1555e9,
        312e12,
        _PCIE4,
        _PCIE_LATENCY,
        "NVIDIA A100 datasheet, 40 GB PCIe (PCIe 4.0 x16, no NVLink bridge)",
    ),
    Hardware(
        "H100-PCIe",
        81559 * _MIB,
        2000e9,
        756e12,
        _PCIE5,
        _PCIE_LATENCY,
        "NVIDIA H100 datasheet, PCIe (PCIe 5.0 x16, no NVLink bridge); FLOP/s are half of the sparse figure",
    ),
    Hardware(
        "H200-NVL",
        143771 * _MIB,
        4800e9,
        835.5e12,
        _PCIE5,
        _PCIE_LATENCY,
        "NVIDIA H200 datasheet, NVL (PCIe 5.0 x16, no NVLink bridge); FLOP/s are half of the sparse figure",
        aliases=("H200",),
    ),
)


def parse_hardware(text: str, option: str = "--hardware") -> tuple[int, Hardware]:
    """Parse the number and kind of a node's GPUs from text such as `4xL20`; a name alone means one GPU.

    Args:
        text: The text.
        option: The option that the text was given by, for error messages.

    Raises:
        SettingsError: The number is 0, or the name is not in the catalogue.
    """
    match = _COUNT_AND_NAME.fullmatch(text.strip())
    if match is None:
        return 1, _find(text, option, example=", as in 4xL20")
    count = int(match[1])
    if count < 1:
        raise SettingsError(option, f"{text!r} has no GPU", "give a number from 1 on, as in 4xL20")
    return count, _find(match[2], option, example=", as in 4xL20")


def parse_kinds(text: str) -> tuple[Hardware, ...]:
    """Parse a comma-separated list of kinds of GPU; `all` stands for every one.

    Raises:
        SettingsError: A name is not in the catalogue, or is preceded by a number of GPUs.
    """
    if text == "all":
        return CATALOGUE
    names = [each.strip() for each in text.split(",")]
    for name in names:
        if _COUNT_AND_NAME.fullmatch(name):
            problem = f"{name!r} has a number of GPUs, but kinds of GPU are compared"
            raise SettingsError("--hardware", problem, "give numbers as --gpus")
    return tuple(dict.fromkeys(_find(name, "--hardware") for name in names))


def _find(name: str, option: str, example: str = "") -> Hardware:
    key = _normalised(name)
    for hardware in CATALOGUE:
        if key in (_normalised(hardware.name), *map(_normalised, hardware.aliases)):
            return hardware
    known = ", ".join(hardware.name for hardware in CATALOGUE)
    raise SettingsError(option, f"no GPU called {name!r}", f"known are {known}{example}")


def _normalised(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
