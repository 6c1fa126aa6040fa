"""Candidates of a simulation: a scheduling policy with its settings, in stages or with tensor parallelism."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import SettingsError
from tdpipe.core.latencies import Latencies
from tdpipe.core.settings import SchedulerSettings
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.simulator import Simulator
from tdpipe.simulation.stage_timeline import StageTimeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.scheduling.policy import Policy
    from tdpipe.simulation.record import SimulationRecord
    from tdpipe.simulation.scenario import Scenario
    from tdpipe.simulation.workload import Job

POLICY_NAMES: tuple[str, ...] = get_args(SchedulerSettings.model_fields["policy"].annotation)
TENSOR_PARALLEL_NAMES = ("tp-hybrid", "tp-separate")
_TENSOR_PARALLEL_PREFIX = "tp-"
_BLOCK_SIZE = 16
_MAX_RUNNING = 2048
_FORECAST_INTERVAL = 50
"""Number of steps between the forecasts that a picture shows."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy as it runs in a simulation."""

    name: str
    settings: SchedulerSettings
    tensor_parallel: bool = False

    def make_policy(self) -> Policy:
        """Make a fresh policy for one run; a subclass may return one that the engine does not offer."""
        return make_policy(self.settings)

    def with_budget(self, budget: int) -> Candidate:
        """Return this candidate with another token budget, which its name states."""
        return replace(
            self,
            name=f"{self.name.split(' @')[0]} @{budget}",
            settings=self.settings.model_copy(update={"token_budget": budget}),
        )


def find_candidates(names: str, *, tensor_parallel: bool = True) -> tuple[Candidate, ...]:
    """Return the candidates that a comma-separated list names, each once; `all` stands for every one.

    Args:
        names: The list.
        tensor_parallel: Whether `all` includes the candidates with tensor parallelism.

    Raises:
        SettingsError: A name is unknown.
    """
    known = {name: (name,) for name in (*POLICY_NAMES, *TENSOR_PARALLEL_NAMES)}
    known["all"] = (*POLICY_NAMES, *(TENSOR_PARALLEL_NAMES if tensor_parallel else ()))
    selected: list[str] = []
    for name in map(str.strip, names.split(",")):
        if name not in known:
            raise SettingsError("--policy", f"no policy {name!r}", f"known are {', '.join(known)}")
        selected += known[name]
    return tuple(make_candidate(name) for name in dict.fromkeys(selected))


def make_candidate(name: str) -> Candidate:
    """Return the candidate of that name, with default settings."""
    policy = name.removeprefix(_TENSOR_PARALLEL_PREFIX)
    settings = SchedulerSettings.model_validate({"policy": policy, "max_running": _MAX_RUNNING})
    return Candidate(name, settings, name.startswith(_TENSOR_PARALLEL_PREFIX))


def check_budget(candidates: Sequence[Candidate]) -> None:
    """Refuse a token budget if none of the candidates uses one.

    Raises:
        SettingsError: All candidates are `reference`.
    """
    if all(each.settings.policy == "reference" for each in candidates):
        raise SettingsError("--budget", "reference has no token budget", "leave it out")


def check_kv_capacity(
    candidate: Candidate,
    scenario: Scenario,
    jobs: Sequence[Job],
    option: str,
    remedy: str,
    length_options: str = "--longest-prompt",
) -> None:
    """Refuse jobs that include one too long for the KV cache, in terms of a command's options.

    The scheduler would refuse the job as well, but in terms of a server's settings.

    Args:
        candidate: The candidate to simulate.
        scenario: The scenario that it runs in.
        jobs: The jobs to serve.
        option: The command's option that makes the KV cache larger.
        remedy: What to do with that option.
        length_options: The command's options that make requests shorter.

    Raises:
        SettingsError: A job needs more KV cache than there is, or the candidate is tensor parallel and the scenario has
            no tensor parallelism.
    """
    kv_tokens = _resources(candidate, scenario).blocks * _BLOCK_SIZE
    longest = _longest_sequence(jobs)
    if longest > kv_tokens:
        problem = f"a request needs up to {longest} tokens of KV cache, which holds {kv_tokens}"
        remedies = f"{remedy}, lower {length_options}, or leave so long outputs out of the trace"
        raise SettingsError(option, problem, remedies)


def simulate(
    candidate: Candidate, scenario: Scenario, jobs: Sequence[Job], *, keep_timeline: bool = False
) -> tuple[SimulationRecord, StageTimeline]:
    """Simulate one run.

    Args:
        candidate: The candidate to simulate.
        scenario: The scenario that it runs in.
        jobs: The jobs to serve.
        keep_timeline: Whether the timeline keeps the intervals of all steps and the record has forecasts.

    Raises:
        RequestError: A job fits neither the context nor the KV cache.
        SettingsError: The candidate is tensor parallel and the scenario has no tensor parallelism.
    """
    resources = _resources(candidate, scenario)
    slots = min(candidate.settings.max_running, resources.blocks)
    capacity = Capacity(resources.blocks, _BLOCK_SIZE, slots, _longest_sequence(jobs))
    scheduler = Scheduler(candidate.make_policy(), capacity, resources.cost)
    timeline = StageTimeline(
        resources.cost, slots, resources.latencies, keep_timeline, scenario.control
    )
    forecast_interval = _FORECAST_INTERVAL if keep_timeline else 0
    return Simulator(scheduler, timeline, jobs, forecast_interval).run(), timeline


@dataclass(frozen=True, slots=True)
class _Resources:
    """What a scenario offers to a candidate."""

    cost: CostModel
    blocks: int
    latencies: Latencies


def _resources(candidate: Candidate, scenario: Scenario) -> _Resources:
    if not candidate.tensor_parallel:
        blocks = scenario.pipeline_kv_tokens // _BLOCK_SIZE
        return _Resources(scenario.pipeline, blocks, scenario.latencies)
    if scenario.tensor_parallel is None:
        assert scenario.no_tensor_parallel is not None
        problem, remedy = scenario.no_tensor_parallel
        raise SettingsError("--policy", f"{candidate.name}: {problem}", remedy)
    return _Resources(
        scenario.tensor_parallel,
        scenario.tensor_parallel_kv_tokens // _BLOCK_SIZE,
        Latencies(step=scenario.latencies.step, feedback=scenario.latencies.feedback),
    )


def _longest_sequence(jobs: Sequence[Job]) -> int:
    return max(job.prompt_tokens + job.max_tokens for job in jobs)
