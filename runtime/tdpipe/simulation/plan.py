"""Which node to buy: every GPU and number of stages that a model fits, under each policy, on the same requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError
from tdpipe.simulation.contestant import check_room, compete
from tdpipe.simulation.figures import figures_of
from tdpipe.simulation.scenario import make_scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tdpipe.core.model_sizes import ModelSizes
    from tdpipe.simulation.contestant import Contestant
    from tdpipe.simulation.figures import Figures
    from tdpipe.simulation.hardware import Hardware
    from tdpipe.simulation.workload import Job


@dataclass(frozen=True, slots=True)
class Option:
    """A node and a policy, and what they give; or why they cannot."""

    hardware: Hardware
    gpus: int
    policy: str
    figures: Figures | None
    refusal: str | None = None

    @property
    def rate(self) -> float:
        """Output tokens per second; 0 where it cannot run."""
        return 0.0 if self.figures is None else self.figures.output_tokens_per_second

    @property
    def filled(self) -> bool:
        """Whether the requests filled the KV cache at any time."""
        return self.figures is not None and self.figures.filled


def options(
    kinds: Sequence[Hardware],
    gpus: Sequence[int],
    shape: ModelSizes,
    contestants: Sequence[Contestant],
    jobs: Sequence[Job],
) -> Iterator[Option]:
    """Every combination, as it is simulated. What the model does not fit comes once, with the reason.

    Args:
        kinds: of GPU.
        gpus: numbers of stages.
        shape: of the model.
        contestants: policies.
        jobs: the same for all.
    """
    for hardware in kinds:
        for count in gpus:
            try:
                scenario = make_scenario(hardware, shape, count, option="--gpus")
            except SettingsError as error:
                yield Option(hardware, count, "", None, str(error))
                continue
            for contestant in contestants:
                try:
                    check_room(contestant, scenario, jobs, "--gpus", "give more")
                except SettingsError as error:
                    yield Option(hardware, count, contestant.name, None, str(error))
                    continue
                record, _ = compete(contestant, scenario, jobs)
                yield Option(hardware, count, contestant.name, figures_of(contestant.name, record))


def best(found: Sequence[Option]) -> tuple[Option, Option] | None:
    """The option with most tokens per second, and that with most per GPU; None if nothing can run."""
    running = [each for each in found if each.figures is not None]
    if not running:
        return None
    return (
        max(running, key=lambda each: each.rate),
        max(running, key=lambda each: each.rate / each.gpus),
    )
