"""Who competes in a simulation: a policy with its parameters, in stages or with tensor parallelism."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from tdpipe.core.capacity import Capacity
from tdpipe.core.errors import SettingsError
from tdpipe.core.latencies import Latencies
from tdpipe.core.settings import SchedulerSettings
from tdpipe.scheduling.policies.make import make_policy
from tdpipe.scheduling.scheduler import Scheduler
from tdpipe.simulation.simulator import Simulator
from tdpipe.simulation.stage_timeline import StageTimeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tdpipe.scheduling.cost_model import CostModel
    from tdpipe.scheduling.policy import Policy
    from tdpipe.simulation.record import SimulationRecord
    from tdpipe.simulation.scenario import Scenario
    from tdpipe.simulation.workload import Job

_BLOCK_SIZE = 16
_MOST_RUNNING = 2048
_FORECAST_EVERY = 50
"""Steps between forecasts that a picture shows."""
_TENSOR_PARALLEL = "tp-"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A policy as it runs in a simulation."""

    name: str
    settings: SchedulerSettings
    tensor_parallel: bool = False
    build: Callable[[SchedulerSettings], Policy[Any]] = make_policy
    """Makes the policy; another one than the engine's takes a part out or puts one in."""

    def with_budget(self, budget: int) -> Contestant:
        """The same with another token budget, which its name tells."""
        return replace(
            self,
            name=f"{self.name.split(' @')[0]} @{budget}",
            settings=self.settings.model_copy(update={"token_budget": budget}),
        )


NAMES: tuple[str, ...] = get_args(SchedulerSettings.model_fields["policy"].annotation)
TENSOR_PARALLEL_NAMES = ("tp-hybrid", "tp-separate")


def find_contestants(names: str, *, tensor_parallel: bool = True) -> tuple[Contestant, ...]:
    """Those that a comma-separated list names, each once; `all` is every one.

    Args:
        names: the list.
        tensor_parallel: whether `all` means those, too.

    Raises:
        SettingsError: one is unknown.
    """
    known = {name: (name,) for name in (*NAMES, *TENSOR_PARALLEL_NAMES)}
    known["all"] = (*NAMES, *(TENSOR_PARALLEL_NAMES if tensor_parallel else ()))
    wanted: list[str] = []
    for name in map(str.strip, names.split(",")):
        if name not in known:
            raise SettingsError("--policy", f"no policy {name!r}", f"known are {', '.join(known)}")
        wanted += known[name]
    return tuple(make_contestant(name) for name in dict.fromkeys(wanted))


def check_budget(contestants: Sequence[Contestant]) -> None:
    """Refuse a token budget that none of them would heed.

    Raises:
        SettingsError: all are `reference`.
    """
    if all(each.settings.policy == "reference" for each in contestants):
        raise SettingsError("--budget", "reference has no token budget", "leave it out")


def make_contestant(name: str) -> Contestant:
    """A policy of the name, with the defaults of its settings."""
    policy = name.removeprefix(_TENSOR_PARALLEL)
    settings = SchedulerSettings.model_validate({"policy": policy, "max_running": _MOST_RUNNING})
    return Contestant(name, settings, name.startswith(_TENSOR_PARALLEL))


def check_room(
    contestant: Contestant,
    scenario: Scenario,
    jobs: Sequence[Job],
    option: str,
    more: str,
    lower: str = "--longest-prompt",
) -> None:
    """Refuse jobs of which one fits no KV cache, by a command's options: the scheduler tells a server's.

    Args:
        contestant: to compete.
        scenario: it runs in.
        jobs: to be served.
        option: of the command, by which there would be more room.
        more: what to do with it for that.
        lower: options of the command, by which requests would be shorter.

    Raises:
        SettingsError: one needs more than there is; it is tensor parallel, and the scenario has no such split.
    """
    room = _split(contestant, scenario).blocks * _BLOCK_SIZE
    longest = _longest(jobs)
    if longest > room:
        problem = f"a request needs up to {longest} tokens of KV cache, which holds {room}"
        remedy = f"{more}, lower {lower}, or leave so long outputs out of the trace"
        raise SettingsError(option, problem, remedy)


def compete(
    contestant: Contestant, scenario: Scenario, jobs: Sequence[Job], *, keep_timeline: bool = False
) -> tuple[SimulationRecord, StageTimeline]:
    """One run.

    Raises:
        RequestError: a job fits neither context nor KV cache.
        SettingsError: it is tensor parallel, and the scenario has no such split.
    """
    cost, blocks, latencies = _split(contestant, scenario)
    slots = min(contestant.settings.max_running, blocks)
    capacity = Capacity(blocks, _BLOCK_SIZE, slots, _longest(jobs))
    scheduler = Scheduler(contestant.build(contestant.settings), capacity, cost)
    timeline = StageTimeline(cost, slots, latencies, keep_timeline, scenario.control)
    every = _FORECAST_EVERY if keep_timeline else 0
    return Simulator(scheduler, timeline, jobs, every).run(), timeline


class _Split(NamedTuple):
    cost: CostModel
    blocks: int
    latencies: Latencies


def _split(contestant: Contestant, scenario: Scenario) -> _Split:
    """The scenario's model as the contestant cuts it."""
    cost, tokens, latencies = scenario.pipeline, scenario.pipeline_kv_tokens, scenario.latencies
    if contestant.tensor_parallel:
        if scenario.tensor_parallel is None:
            assert scenario.no_tensor_parallel is not None
            problem, remedy = scenario.no_tensor_parallel
            raise SettingsError("--policy", f"{contestant.name}: {problem}", remedy)
        cost, tokens = scenario.tensor_parallel, scenario.tensor_parallel_kv_tokens
        latencies = Latencies(step=latencies.step, feedback=latencies.feedback)
    return _Split(cost, tokens // _BLOCK_SIZE, latencies)


def _longest(jobs: Sequence[Job]) -> int:
    return max(job.prompt_tokens + job.max_tokens for job in jobs)
