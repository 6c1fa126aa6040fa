"""Comparison of nodes: every kind and number of GPUs that a model fits, under each policy, on the same requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.candidate import check_kv_capacity, simulate
from tdpipe.simulation.figures import figures_of
from tdpipe.simulation.scenario import make_scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdpipe.core.model_sizes import ModelSizes
    from tdpipe.simulation.candidate import Candidate
    from tdpipe.simulation.figures import Figures
    from tdpipe.simulation.hardware import Hardware
    from tdpipe.simulation.workload import Job


@dataclass(frozen=True, slots=True)
class Option:
    """A node and a policy with the figures of their run, or the reason why they cannot run."""

    hardware: Hardware
    gpus: int
    policy: str
    figures: Figures | None
    refusal: str | None = None

    @property
    def rate(self) -> float:
        """Output tokens per second; 0 if the option cannot run."""
        return 0.0 if self.figures is None else self.figures.output_tokens_per_second

    @property
    def filled(self) -> bool:
        """Whether the requests filled the KV cache at any time."""
        return self.figures is not None and self.figures.filled


def options(
    kinds: Sequence[Hardware],
    gpus: Sequence[int],
    sizes: ModelSizes,
    candidates: Sequence[Candidate],
    jobs: Sequence[Job],
) -> Iterator[Option]:
    """Simulate every combination and yield each as it ends; a node that the model does not fit is yielded once.

    Args:
        kinds: The kinds of GPU.
        gpus: The numbers of stages.
        sizes: The sizes of the model.
        candidates: The policies.
        jobs: The jobs that every combination serves.
    """
    for hardware in kinds:
        for count in gpus:
            try:
                scenario = make_scenario(hardware, sizes, count, option="--gpus")
            except SettingsError as error:
                yield Option(hardware, count, "", None, str(error))
                continue
            for candidate in candidates:
                try:
                    check_kv_capacity(candidate, scenario, jobs, "--gpus", "give more")
                except SettingsError as error:
                    yield Option(hardware, count, candidate.name, None, str(error))
                    continue
                record, _ = simulate(candidate, scenario, jobs)
                yield Option(hardware, count, candidate.name, figures_of(candidate.name, record))


def best(found: Sequence[Option]) -> tuple[Option, Option] | None:
    """Return the options with the most tokens per second and the most per GPU; None if no option can run."""
    running = [each for each in found if each.figures is not None]
    if not running:
        return None
    return (
        max(running, key=lambda each: each.rate),
        max(running, key=lambda each: each.rate / each.gpus),
    )
