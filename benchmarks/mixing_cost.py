"""At which price of mixing prefill and decode phases overtake it, and whether `adaptive` follows.

Three prices, each on its own: a fixed time of every mixed step, slower reading of KV in mixed steps, and prefill chunks
that read a prompt's earlier KV more often. At each, `temporal`, `hybrid` at its best budget, and `adaptive`, which is
told the price by the cost model and nothing else. In simulation; nothing here is measured on a GPU.

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

from benchmarks.figures_file import add_json_option, open_figures
from benchmarks.machine import cpu_cores
from benchmarks.paper_work import CELLS, Task, jobs_of, scenario_of
from tdpipe.cli.output_file import check_picture
from tdpipe.core.errors import TDPipeError
from tdpipe.scheduling.cost_model import CHUNK_TILE, CostModel, MixingCost
from tdpipe.simulation.candidate import Candidate, make_candidate, simulate
from tdpipe.simulation.length_knowledge import Knowledge
from tdpipe.simulation.trace import SYNTHETIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_BUDGETS = (128, 256, 512)
"""Of `hybrid`, tried at each price."""
_COLOURS = {"temporal": "#1b9e77", "hybrid": "#7570b3", "adaptive": "#d95f02"}


@dataclass(frozen=True, slots=True)
class Price:
    """One kind of cost and the amounts of it that are tried."""

    title: str
    unit: str
    amounts: tuple[float, ...]
    """Ascending from what is free."""


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
    """What the policies make at one amount, in output tokens/s."""

    amount: float
    temporal: float
    hybrid: float
    """At its best budget."""
    budget: int
    """Which that is."""
    adaptive: float

    @property
    def kept(self) -> float:
        """Share of the better one that `adaptive` makes."""
        return self.adaptive / max(self.temporal, self.hybrid)


def priced(cost: CostModel, kind: str, amount: float) -> CostModel:
    """The same stages with an amount of one price.

    Args:
        cost: of steps, with mixing for nothing.
        kind: of `PRICES`.
        amount: in the price's unit.
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
    """The amount at which phases begin to make more than mixing, between two points by a line; None where they do not.

    Args:
        points: by amount, ascending.
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
    """Output tokens/s of a task's candidate at an amount of a price; for a process pool."""
    task, kind, amount = trial
    scenario = scenario_of(CELLS[task.cell], task.profiles)
    scenario = replace(scenario, pipeline=priced(scenario.pipeline, kind, amount))
    record, _ = simulate(task.candidate, scenario, jobs_of(task))
    return record.output_tokens_per_second


def points_of(pool: ProcessPoolExecutor, base: Task, kind: str) -> list[Point]:
    """Every amount of a price."""
    price = PRICES[kind]
    tasks = [replace(base, candidate=each) for each in _candidates()]
    trials = [(task, kind, amount) for amount in price.amounts for task in tasks]
    rates = list(pool.map(run_trial, trials))
    points = []
    for index, amount in enumerate(price.amounts):
        row = rates[index * len(tasks) : (index + 1) * len(tasks)]
        hybrid, budget = max(zip(row[2:], _BUDGETS, strict=True))
        points.append(Point(amount, row[0], hybrid, budget, row[1]))
    return points


def draw(path: Path, title: str, found: dict[str, list[Point]]) -> None:
    """Write the picture, in the format of the path's suffix: a panel for each price."""
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
    """What to simulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help=f"CSV of lengths, else a {SYNTHETIC} mix")
    parser.add_argument("--profiles", type=Path, help="folder of measured tables, else estimates")
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
    file = open_figures(args.json, "mixing_cost")
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
    return ours + [hybrid.with_budget(budget) for budget in _BUDGETS]


def _section(price: Price, points: Sequence[Point]) -> str:
    where = crossing(points)
    lines = [
        f"**{price.title}**: phases overtake mixing "
        + ("nowhere here" if where is None else f"at {where:.3g} {price.unit}")
        + ".\n",
        f"| {price.unit} | `temporal` | `hybrid`, best budget | `adaptive` | of the better |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.amount:g} | {each.temporal:.0f} | {each.hybrid:.0f} @{each.budget} "
        f"| {each.adaptive:.0f} | {each.kept:.3f} |"
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
        text = f" phases overtake at {where:.3g}"
        axes.text(where, 0.02, text, transform=axes.get_xaxis_transform(), fontsize=8)
    if price.amounts[-1] / max(price.amounts[0], 1.0) > 16.0:
        axes.set_xscale("log", base=2)
        axes.set_xticks(amounts, [f"{each:g}" for each in amounts])
    axes.set_title(price.title, fontsize=10)
    axes.set_xlabel(price.unit)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
