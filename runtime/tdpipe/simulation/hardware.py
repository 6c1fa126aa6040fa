"""GPUs that a pipeline can be simulated on, from their vendors' figures.

A simulation is worth something only if its inputs can be checked, so each entry names where its numbers are from. Links
are taken as NCCL's own planner takes them, which is what one direction carries while the other is in use, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tdpipe.core.errors import SettingsError

_MIB = 2**20
_COUNTED = re.compile(r"(\d+)\s*x\s*(.*)", re.IGNORECASE)
"""A number of GPUs and their name."""
_FORM = ", as in 4xL20"
_PCIE4, _PCIE5 = 24e9, 48e9
"""B/s: what NCCL plans an x16 link with (src/graph: 24.0 in its topology logs), three quarters of the raw rate.

Pairs were measured at 20.7 to 26 (RTX 4090 with peer access, both directions in use) and 50 to 56.
"""
_PCIE_STEP = 2.5e-6
"""Seconds: a ring's step over PCIe in NCCL's tuning table (hwLat: Ring, LL128)."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One GPU and its link to the others of its node."""

    name: str
    memory_bytes: int
    """As nvidia-smi reports it: error correction takes a sixteenth of a data centre card's GDDR6."""
    memory_bandwidth: float
    """B/s, peak."""
    flops: float
    """FLOP/s of bfloat16 products that add up in float32, dense, peak."""
    peer_bandwidth: float
    """B/s from GPU to GPU, in each direction."""
    peer_latency: float
    """Seconds until a message to another GPU begins to arrive."""
    source: str
    aliases: tuple[str, ...] = ()
    """Other names that people give it."""


CATALOGUE = (
    Hardware(
        "L20",
        46068 * _MIB,
        864e9,
        119.5e12,
        _PCIE4,
        _PCIE_STEP,
        "NVIDIA's figures for the L20 as resellers list them (Tom's Hardware, 'H20, L20, and L2'); PCIe 4.0 x16",
    ),
    Hardware(
        "L40S",
        46068 * _MIB,
        864e9,
        362.05e12,
        _PCIE4,
        _PCIE_STEP,
        "NVIDIA L40S datasheet (PCIe 4.0 x16)",
    ),
    Hardware(
        "A10",
        23028 * _MIB,
        600e9,
        125e12,
        _PCIE4,
        _PCIE_STEP,
        "NVIDIA A10 datasheet (PCIe 4.0 x16)",
    ),
    Hardware(
        "RTX-4090",
        24564 * _MIB,
        1008e9,
        165.2e12,
        13e9,
        3e-6,
        "NVIDIA Ada GPU architecture whitepaper, appendix A; its driver gives no peer access, so the link is the way "
        "through host memory: 26 GB/s in both directions together (tinygrad/open-gpu-kernel-modules#6), an empty "
        "all-reduce of 14 steps in 41 us (NVIDIA/nccl#1530)",
    ),
    Hardware(
        "A100-PCIe",
        81920 * _MIB,
        1935e9,
        312e12,
        _PCIE4,
        _PCIE_STEP,
        "NVIDIA A100 datasheet, 80 GB PCIe (PCIe 4.0 x16, no NVLink bridge)",
    ),
    Hardware(
        "A100-PCIe-40GB",
        40960 * _MIB,
        1555e9,
        312e12,
        _PCIE4,
        _PCIE_STEP,
        "NVIDIA A100 datasheet, 40 GB PCIe (PCIe 4.0 x16, no NVLink bridge)",
    ),
    Hardware(
        "H100-PCIe",
        81559 * _MIB,
        2000e9,
        756e12,
        _PCIE5,
        _PCIE_STEP,
        "NVIDIA H100 datasheet, PCIe (PCIe 5.0 x16, no NVLink bridge); FLOP/s are half of the sparse figure",
    ),
    Hardware(
        "H200-NVL",
        143771 * _MIB,
        4800e9,
        835.5e12,
        _PCIE5,
        _PCIE_STEP,
        "NVIDIA H200 datasheet, NVL (PCIe 5.0 x16, no NVLink bridge); FLOP/s are half of the sparse figure",
        aliases=("H200",),
    ),
)


def parse_hardware(text: str, option: str = "--hardware") -> tuple[int, Hardware]:
    """GPUs of a node and their kind, from such as `4xL20`; a name alone is one GPU.

    Args:
        text: what was given.
        option: where, for messages.

    Raises:
        SettingsError: it has no GPU, or a name that is not in the catalogue.
    """
    match = _COUNTED.fullmatch(text.strip())
    if match is None:
        return 1, _find(text, option, _FORM)
    count = int(match[1])
    if count < 1:
        raise SettingsError(option, f"{text!r} has no GPU", "give such as 4xL20")
    return count, _find(match[2], option, _FORM)


def parse_kinds(text: str) -> tuple[Hardware, ...]:
    """Kinds of GPU from a comma-separated list of names; `all` is every one.

    Raises:
        SettingsError: a name is not in the catalogue, or has a number of GPUs.
    """
    if text == "all":
        return CATALOGUE
    names = [each.strip() for each in text.split(",")]
    for name in names:
        if _COUNTED.fullmatch(name):
            problem = f"{name!r} has a number of GPUs, where kinds are compared"
            raise SettingsError("--hardware", problem, "give numbers as --gpus")
    return tuple(dict.fromkeys(_find(name, "--hardware") for name in names))


def _find(name: str, option: str, form: str = "") -> Hardware:
    wanted = _plain(name)
    for hardware in CATALOGUE:
        if wanted in (_plain(hardware.name), *map(_plain, hardware.aliases)):
            return hardware
    known = ", ".join(hardware.name for hardware in CATALOGUE)
    raise SettingsError(option, f"no GPU called {name!r}", f"known are {known}{form}")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
