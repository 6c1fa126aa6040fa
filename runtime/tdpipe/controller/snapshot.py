"""The engine's figures at one moment, for metrics and logs."""

from __future__ import annotations

from dataclasses import dataclass

from tdpipe.core.step import Phase

FIRST_PHASE = Phase.PREFILL
"""Before the first step, which can only be prefill."""


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    """Queue, memory, phase and stages. Counters count from the engine's start."""

    waiting: int = 0
    """Requests without KV cache."""
    running: int = 0
    """Requests that hold KV cache."""
    kv_blocks: int = 0
    """Blocks of a stage's KV cache."""
    kv_blocks_used: int = 0
    phase: Phase = FIRST_PHASE
    """Of the last step."""
    phase_switches: int = 0
    """From prefill to decode and back; mixed steps are neither."""
    preemptions: int = 0
    stage_busy: tuple[float, ...] = ()
    """Seconds that each stage computed."""
    stage_bubble: tuple[float, ...] = ()
    """Seconds that each stage waited while steps were in flight."""
