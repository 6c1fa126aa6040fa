"""How well output lengths are foreseen in sum, and what a prediction costs.

All rivals learn from the same requests and are judged by others: by the error of the summed length of so many requests,
and by the error of the KV cache's forecast, made by the scheduler's own code for requests under way, some steps ahead.
The prompts are the demo model's, whose answers follow from them; a trace has lengths only.

    python -m benchmarks.length_prediction --trace LENGTHS.csv
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from examples.demo_model.tasks import Split, examples, small_talk

from benchmarks.figures_file import add_json_option, open_figures
from benchmarks.length_rivals import FiveClasses, LogQuantiles, Ours, always_the_mean, oracle
from benchmarks.request_mix import LONGEST_PROMPT
from tdpipe.core.errors import TDPipeError
from tdpipe.prediction.catboost_predictor import CatBoostPredictor
from tdpipe.prediction.features import PromptFeatures
from tdpipe.prediction.input_vector import input_vector
from tdpipe.prediction.score import Score, score
from tdpipe.prediction.tenants import TenantHistory
from tdpipe.prediction.text_numbers import describe_text
from tdpipe.prediction.training import TrainingFailedError
from tdpipe.prediction.training_rows import TrainingRows
from tdpipe.scheduling.forecast import KVForecast
from tdpipe.simulation.trace import read_trace, sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.length_rivals import Prediction
    from tdpipe.prediction.length_model import LengthModel, OutcomeRows
    from tdpipe.prediction.verdict import Verdict

_TASK_SHARES = {"count": 20, "repeat": 15, "reverse": 30, "sort": 25, "spell": 10, "small talk": 3}
_SUMS = (32, 128, 512)
_AHEAD = (0.25, 1.0, 2.0)
"""Mean lengths that the KV cache is forecast ahead."""
_RUNNING = 128
"""Requests under way in a forecast."""
_FORECASTS = 200
_BLOCK = 16
_TIMED = 3_000
_LONG_PROMPT = "Summarise what the committee said about the budget of 1998, please. " * 30
_PAPER_RATE = 2_370
_PAPER_LENGTH = 415
"""Llama-2-13B's on four L20, and ShareGPT's."""


def demo_rows(
    count: int, split: Split, bound: int, seed: int
) -> tuple[list[PromptFeatures], TrainingRows]:
    """Requests of the demo model's tasks, with the right answers' lengths."""
    random = Random(seed)
    streams = {
        task: small_talk(seed) if task == "small talk" else examples(task, split, seed)
        for task in _TASK_SHARES
    }
    tasks = random.choices(list(_TASK_SHARES), list(_TASK_SHARES.values()), k=count)
    asked = [next(streams[task]) for task in tasks]
    features = [
        PromptFeatures(len(each.prompt.encode()) + 3, bound, text=describe_text(each.prompt))
        for each in asked
    ]
    # A token a byte, and the end token.
    return features, _rows(features, [len(each.answer.encode()) + 1 for each in asked])


def trace_rows(
    file: Path, count: int, bound: int, seed: int
) -> tuple[list[PromptFeatures], TrainingRows]:
    """Requests of a trace, of which only numbers are known."""
    drawn = sample(read_trace(file, LONGEST_PROMPT), count, seed, arrivals=False)
    features = [PromptFeatures(each.prompt_tokens, bound) for each in drawn]
    return features, _rows(features, [each.output_tokens for each in drawn])


def _rows(features: list[PromptFeatures], lengths: list[int]) -> TrainingRows:
    tenants = TenantHistory()
    bounds = np.array([each.max_tokens for each in features])
    length = np.minimum(lengths, bounds)
    vectors = np.stack([input_vector(each, tenants) for each in features])
    return TrainingRows(vectors, length, length < bounds, bounds)


def forecast_errors(rows: TrainingRows, outcomes: OutcomeRows, seed: int) -> list[float]:
    """Root of the mean squared error of forecast KV blocks at each of `_AHEAD`, as a share of the blocks in use now."""
    random = np.random.default_rng(seed)
    steps = [round(share * rows.lengths.mean()) for share in _AHEAD]
    forecast = KVForecast(int(rows.bounds.max()), _BLOCK, skew=0)
    points = [0, *np.searchsorted(forecast.steps, steps).tolist()]
    prompts = np.rint(np.exp(rows.vectors[:, 0])).astype(np.int32)
    errors = []
    for _ in range(_FORECASTS):
        # Long outputs are met under way more often than short ones.
        met = random.choice(len(rows), _RUNNING, p=rows.lengths / rows.lengths.sum())
        generated = random.integers(1, rows.lengths[met] + 1).astype(np.int32)
        bounds = rows.bounds[met].astype(np.int32)

        def demand(told: OutcomeRows) -> np.ndarray:
            given = told.astype(np.int32)
            return forecast.of_running(prompts[met] + generated, generated, bounds, given).mean  # noqa: B023

        actual = demand(rows.lengths[met][:, None])[points]
        errors.append((demand(outcomes[met])[points] - actual)[1:] / actual[0])
    return [float(each) for each in np.sqrt((np.array(errors) ** 2).mean(axis=0))]


def microseconds(action: Callable[[int], object]) -> tuple[float, float]:
    """Median and 99th percentile of single calls."""
    times = []
    for number in range(_TIMED):
        begin = time.perf_counter()
        action(number)
        times.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(times), statistics.quantiles(times, n=100)[-1]


class Patience:
    """A trainer that never comes to an end, so that what is timed is the engine's own part."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def train(self, rows: TrainingRows, incumbent: LengthModel | None) -> Verdict:  # noqa: ARG002
        """Wait to be stopped."""
        self._stopped.wait()
        raise TrainingFailedError("stopped")

    def stop(self) -> None:
        """Let `train` go."""
        self._stopped.set()


def costs_of(model: LengthModel, features: list[PromptFeatures]) -> dict[str, tuple[float, float]]:
    """Microseconds that the parts of a request cost the engine, see `microseconds`."""
    predictor = CatBoostPredictor(model, Patience())
    timed = {
        f"reading a text of {len(_LONG_PROMPT):,} characters, beside the event loop": microseconds(
            lambda _: describe_text(_LONG_PROMPT)
        ),
        "predicting": microseconds(lambda n: predictor.predict(features[n % len(features)])),
        "learning from its end": microseconds(
            lambda n: predictor.observe(features[n % len(features)], 1 + n, complete=True)
        ),
    }
    predictor.close()
    return timed


def cost_table(timed: dict[str, tuple[float, float]]) -> str:
    """The parts, and which share of the paper's run they are together."""
    lines = ["| a request's | median us | p99 us |", "|---|---|---|"]
    lines += [f"| {name} | {usual:.0f} | {rare:.0f} |" for name, (usual, rare) in timed.items()]
    seconds = sum(usual for usual, _ in timed.values()) / 1e6
    share = seconds * _PAPER_RATE / _PAPER_LENGTH
    told = (
        f"Together {share:.3%} of the time that a node takes for a request if it gives {_PAPER_RATE:,} output tokens "
        f"a second, {_PAPER_LENGTH} a request (TD-Pipe tells 0.153%)."
    )
    return "\n".join([*lines, "", told])


@dataclass(frozen=True, slots=True)
class Judged:
    """How good a rival's predictions are."""

    score: Score
    sums: tuple[float, ...]
    """Error of the summed length at each of `_SUMS`, as a share of the sum."""
    forecast: tuple[float, ...]
    """See `forecast_errors`."""


def judge(predict: Prediction, judged: TrainingRows, seed: int) -> Judged:
    """Let a rival predict all of these."""
    outcomes = predict(judged)
    got = score(outcomes, judged.lengths)
    sums = tuple(got.sum_error(count) for count in _SUMS)
    return Judged(got, sums, tuple(forecast_errors(judged, outcomes, seed)))


def error_table(found: dict[str, Judged]) -> str:
    """A row per rival."""
    header = [
        "predictor",
        *(f"sum of {count}" for count in _SUMS),
        "bias",
        "pinball, tokens",
        *(f"KV in {share:g} mean lengths" for share in _AHEAD),
    ]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, each in found.items():
        cells = [
            name,
            *(f"{error:.1%}" for error in each.sums),
            f"{-each.score.bias / each.score.mean_length:+.1%}",
            f"{each.score.pinball:.2f}",
            *(f"{error:.1%}" for error in each.forecast),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, judge, and print a section for a page of `docs/benchmarks/`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trace", type=Path, help="CSV of lengths in place of the demo's prompts")
    parser.add_argument("--rows", type=int, default=4_000, help="requests to learn from")
    parser.add_argument("--judged", type=int, default=4_000, help="other requests to judge by")
    parser.add_argument("--max-tokens", type=int, help="of each request; else 512, a trace's 2048")
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    args = parser.parse_args()
    file = open_figures(args.json, "length_prediction")
    try:
        learned, judged, features = _data(args)
    except TDPipeError as error:
        sys.exit(str(error))
    classes, ours = FiveClasses(learned), Ours(learned)
    rivals: dict[str, Prediction] = {
        "always the mean": always_the_mean(learned),
        "five classes": classes,
        "quantiles of the logarithm": LogQuantiles(learned),
        "ours": ours,
        "oracle": oracle,
    }
    what = f"lengths of {args.trace.name}" if args.trace else "prompts of the demo model's tasks"
    print(file.heading)
    print(
        f"{len(learned)} requests to learn from, {len(judged)} others to judge by: {what}, "
        f"{judged.lengths.mean():.0f} output tokens in the mean. Errors are roots of mean squares; the five classes "
        f"are named right for {classes.accuracy(judged):.1%}.\n"
    )
    found = {name: judge(predict, judged, args.seed) for name, predict in rivals.items()}
    timed = costs_of(ours.model, features)
    print(f"{error_table(found)}\n\n{cost_table(timed)}")
    file.write({"predictors": found, "microseconds": timed})


def _data(args: argparse.Namespace) -> tuple[TrainingRows, TrainingRows, list[PromptFeatures]]:
    if args.trace:
        features, rows = trace_rows(
            args.trace, args.rows + args.judged, args.max_tokens or 2_048, args.seed
        )
        return rows.at(slice(args.rows)), rows.at(slice(args.rows, None)), features
    bound = args.max_tokens or 512
    features, learned = demo_rows(args.rows, Split.TRAIN, bound, args.seed)
    return learned, demo_rows(args.judged, Split.HELD_OUT, bound, args.seed)[1], features


if __name__ == "__main__":
    main()
