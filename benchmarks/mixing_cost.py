"""Finds in simulation the cost of mixed steps at which separate phases become faster, and whether `adaptive` follows.

Three costs are varied one at a time: a fixed time for each mixed step, slower reading of KV in mixed steps, and prefill
chunks that read the earlier KV of a prompt more often. At each, `temporal`, `hybrid` at its best budget and `adaptive`
serve the same requests; `adaptive` knows the cost from the cost model only. Nothing is measured on a GPU.

    python -m benchmarks.mixing_cost --trace LENGTHS.csv --profiles DIRECTORY --picture mixing-cost.png
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.machine import cpu_cores
from benchmarks.paper_work import CELLS, Task, jobs_of, scenario_of
from benchmarks.results_file import add_json_option, open_results_file
from tdpipe.cli.output_file import check_picture
from tdpipe.core.errors import TDPipeError
from tdpipe.scheduling.cost_model import CHUNK_TILE, CostModel, MixingCost
from tdpipe.simulation.candidate import Candidate, make_candidate, simulate
from tdpipe.simulation.length_knowledge import Knowledge
from tdpipe.simulation.trace import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_HYBRID_BUDGETS = (128, 256, 512)
"""Token budgets of `hybrid` that are tried at each cost."""
_COLOURS = {"temporal": "#1b9e77", "hybrid": "#7570b3", "adaptive": "#d95f02"}


@dataclass(frozen=True, slots=True)
class Price:
    """One kind of cost of mixed steps, and the amounts that are tried."""

    title: str
    unit: str
    amounts: tuple[float, ...]
    """Amounts in ascending order; the first costs nothing."""


PRICES = {
    "replay": Price(
        "no graph replay in mixed steps",
        "ms more for each mixed step and stage",
        (0.0, 1.5, 3.0, 4.5, 6.0),
    ),
    "attention": Price(
        "slower mixed attention",
        "times as long to read KV in mixed steps",
        (1.0, 1.15, 1.3, 1.5, 2.0),
    ),
    "rereads": Price(
        "KV re-reads of prefill chunks",
        f"reads of the earlier KV for each {CHUNK_TILE} tokens of a chunk",
        (1.0, 8.0, 32.0, 64.0, 128.0),
    ),
}


@dataclass(frozen=True, slots=True)
class Point:
    """Throughput of the policies at one amount of a cost, in output tokens per second."""

    amount: float
    temporal: float
    hybrid: float
    """Throughput of `hybrid` at its best budget."""
    budget: int
    """Best token budget of `hybrid`."""
    adaptive: float

    @property
    def adaptive_share(self) -> float:
        """Throughput of `adaptive` as a share of the better of the other two."""
        return self.adaptive / max(self.temporal, self.hybrid)


def with_price(cost: CostModel, kind: str, amount: float) -> CostModel:
    """Return the cost model of the same stages with one cost of mixed steps.

    Args:
        cost: Cost model in which mixing is free.
        kind: Key of `PRICES`.
        amount: Amount in the unit of the price.
    """
    match kind:
        case "replay":
            return CostModel(cost.stages, MixingCost(seconds=amount / 1e3))
        case "attention":
            return CostModel(cost.stages, MixingCost(decode_context=amount))
        case "rereads":
            return CostModel(cost.stages, MixingCost(), max(1, round(CHUNK_TILE / amount)))
        case _:
            raise ValueError(f"no price {kind!r}")


def crossing(points: Sequence[Point]) -> float | None:
    """Return the amount from which separate phases are faster than mixing, interpolated linearly.

    Args:
        points: Points in ascending order of the amount.

    Returns:
        The amount, or None if mixing is faster at all points.
    """
    leads = [each.temporal - each.hybrid for each in points]
    for index, lead in enumerate(leads):
        if lead > 0.0:
            if not index:
                return points[0].amount
            before, after = points[index - 1], points[index]
            share = leads[index - 1] / (leads[index - 1] - lead)
            return before.amount + share * (after.amount - before.amount)
    return None


def run_trial(trial: tuple[Task, str, float]) -> float:
    """Return the output tokens per second of a task at an amount of a price; called in a process pool."""
    task, kind, amount = trial
    scenario = scenario_of(CELLS[task.cell], task.profiles)
    scenario = replace(scenario, pipeline=with_price(scenario.pipeline, kind, amount))
    record, _ = simulate(task.candidate, scenario, jobs_of(task))
    return record.output_tokens_per_second


def points_of(pool: ProcessPoolExecutor, base: Task, kind: str) -> list[Point]:
    """Simulate the policies at every amount of a price."""
    price = PRICES[kind]
    tasks = [replace(base, candidate=each) for each in _candidates()]
    trials = [(task, kind, amount) for amount in price.amounts for task in tasks]
    rates = list(pool.map(run_trial, trials))
    points = []
    for index, amount in enumerate(price.amounts):
        row = rates[index * len(tasks) : (index + 1) * len(tasks)]
        hybrid, budget = max(zip(row[2:], _HYBRID_BUDGETS, strict=True))
        points.append(Point(amount, row[0], hybrid, budget, row[1]))
    return points


def draw(path: Path, title: str, found: dict[str, list[Point]]) -> None:
    """Write a picture with a panel per price, in the format of the path's suffix."""
    figure = Figure(figsize=(5 * len(found), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, (kind, points) in zip(panels, found.items(), strict=True):
        _panel(axes, PRICES[kind], points)
    panels[0].set_ylabel("output tokens/s")
    panels[0].legend(loc="lower left")
    figure.savefig(path, dpi=90)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trace", type=Path, help=f"CSV file of lengths; default: a {SYNTHETIC} trace"
    )
    parser.add_argument(
        "--profiles", type=Path, help="folder of measured tables; default: estimates"
    )
    parser.add_argument("--cell", choices=CELLS, default="13B")
    parser.add_argument("--prices", nargs="+", choices=PRICES, default=list(PRICES))
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--lengths", choices=get_args(Knowledge), default="classifier")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw a panel per price")
    add_json_option(parser)
    return parser.parse_args()


def main() -> None:
    """Simulate, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "mixing_cost")
    candidate = make_candidate("temporal")
    base = Task(args.cell, candidate, args.requests, 0, args.lengths, args.trace, args.profiles)
    print(file.heading)
    found: dict[str, list[Point]] = {}
    try:
        check_picture(args.picture, "--picture")
        name = scenario_of(CELLS[args.cell], args.profiles).name
        with ProcessPoolExecutor(cpu_cores()) as pool:
            for kind in args.prices:
                found[kind] = points_of(pool, base, kind)
                print(_section(PRICES[kind], found[kind]), flush=True)
    except TDPipeError as error:
        sys.exit(str(error))
    if args.picture:
        draw(args.picture, f"{name}, {args.requests} requests, simulated", found)
    file.write(found)


def _candidates() -> list[Candidate]:
    hybrid = make_candidate("hybrid")
    ours = [make_candidate("temporal"), make_candidate("adaptive")]
    return ours + [hybrid.with_budget(budget) for budget in _HYBRID_BUDGETS]


def _section(price: Price, points: Sequence[Point]) -> str:
    where = crossing(points)
    lines = [
        f"**{price.title}**: separate phases are faster "
        + ("at no tried amount" if where is None else f"from {where:.3g} {price.unit}")
        + ".\n",
        f"| {price.unit} | `temporal` | `hybrid`, best budget | `adaptive` | share of the better |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.amount:g} | {each.temporal:.0f} | {each.hybrid:.0f} @{each.budget} "
        f"| {each.adaptive:.0f} | {each.adaptive_share:.3f} |"
        for each in points
    ]
    return "\n".join(lines) + "\n"


def _panel(axes: Axes, price: Price, points: Sequence[Point]) -> None:
    amounts = [each.amount for each in points]
    for name, style in (("temporal", "o-"), ("hybrid", "s-"), ("adaptive", "^--")):
        label = "hybrid, best budget" if name == "hybrid" else name
        rates = [getattr(each, name) for each in points]
        axes.plot(amounts, rates, style, color=_COLOURS[name], label=label, markersize=4)
    where = crossing(points)
    if where is not None:
        axes.axvline(where, color="black", linewidth=0.8, linestyle=":")
        text = f" phases are faster from {where:.3g}"
        axes.text(where, 0.02, text, transform=axes.get_xaxis_transform(), fontsize=8)
    if price.amounts[-1] / max(price.amounts[0], 1.0) > 16.0:
        axes.set_xscale("log", base=2)
        axes.set_xticks(amounts, [f"{each:g}" for each in amounts])
    axes.set_title(price.title, fontsize=10)
    axes.set_xlabel(price.unit)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
