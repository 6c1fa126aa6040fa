"""All parts of the check, in the order in which they run. Correctness comes first, in case the time ends early."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.gpu_check.card import measure_bandwidth, measure_rate
from benchmarks.gpu_check.equality import FAMILIES, FamilyEquality
from benchmarks.gpu_check.large_model import load_model, write_model
from benchmarks.gpu_check.part import Finding, Part
from benchmarks.gpu_check.profile_file import write_profile
from benchmarks.gpu_check.serving import POLICIES, serve_generate_batch, serve_policy
from benchmarks.gpu_check.step_times import measure_decode, measure_prefill

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.gpu_check.context import CheckContext

_BASE = (_BANDWIDTH, _RATE, _WRITE, _LOAD) = (
    "memory bandwidth",
    "bf16 rate",
    "write checkpoint",
    "load weights",
)
"""Parts that leave something for those of the large model."""


def list_parts(context: CheckContext) -> list[Part]:
    """Every part with its time limit in seconds."""
    scale = context.scale
    parts = [
        Part(_BANDWIDTH, 30, _timeless(partial(measure_bandwidth, context))),
        Part(_RATE, 30, _timeless(partial(measure_rate, context))),
    ]
    for family in FAMILIES:
        equality = FamilyEquality(context, family)
        parts.append(Part(f"{family} float32", 45, _timeless(equality.check_float32)))
        parts.append(Part(f"{family} bfloat16", 45, _timeless(equality.check_bfloat16)))
    parts.append(Part(_WRITE, 75, partial(write_model, context), needs_model=True))
    large: list[tuple[str, float, Callable[[], Finding]]] = [
        (_LOAD, 75, partial(load_model, context)),
        (f"prefill of {scale.prefill} tokens", 40, partial(measure_prefill, context)),
    ]
    large += [
        (f"decode at batch {rows}", 40, partial(measure_decode, context, rows))
        for rows in scale.batches
    ]
    large += [
        (f"serving, {policy}", 75, partial(serve_policy, context, policy)) for policy in POLICIES
    ]
    large += [
        ("profile", 90, partial(write_profile, context)),
        ("serving, generate_batch", 90, partial(serve_generate_batch, context)),
    ]
    parts += [Part(name, limit, _timeless(run), needs_model=True) for name, limit, run in large]
    return parts


def select_parts(parts: Sequence[Part], texts: Sequence[str]) -> list[Part]:
    """Parts whose names contain one of the texts, with what those of the large model build on."""
    chosen = [part for part in parts if any(text in part.name for text in texts)]
    if any(part.needs_model for part in chosen):
        chosen = [part for part in parts if part in chosen or part.name in _BASE]
    return chosen


def _timeless(run: Callable[[], Finding]) -> Callable[[float], Finding]:
    """Give a part that ends by itself the signature of one that watches its time."""
    return lambda _: run()
