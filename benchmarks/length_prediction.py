"""Accuracy of predicted output lengths, and the cost of a prediction.

All predictors are trained on the same requests and evaluated on others, by the error of the summed length of several
requests and by the error of the scheduler's own KV forecast for running requests. The prompts are those of the demo
model, whose answers follow from them; a trace has lengths but no texts.

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
from examples.demo_model.dialogue import TASK_SHARES
from examples.demo_model.tasks import Split, examples, small_talk

from benchmarks.length_baselines import FiveClasses, LogQuantiles, mean_predictor, oracle
from benchmarks.request_mix import MAX_PROMPT_TOKENS
from benchmarks.results_file import add_json_option, open_results_file
from tdpipe.core.errors import TDPipeError
from tdpipe.prediction.catboost_predictor import CatBoostPredictor
from tdpipe.prediction.evaluation import Score, score_outcomes
from tdpipe.prediction.features import PromptFeatures, feature_vector
from tdpipe.prediction.tenant_history import TenantHistory
from tdpipe.prediction.text_features import extract_text_features
from tdpipe.prediction.training import TrainingFailedError, train
from tdpipe.prediction.training_rows import TrainingRows
from tdpipe.scheduling.forecast import KVForecast
from tdpipe.simulation.trace import read_trace, sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.length_baselines import Predictor
    from tdpipe.core.step import FloatArray
    from tdpipe.prediction.evaluation import Evaluation
    from tdpipe.prediction.length_model import LengthModel, OutcomeRows

_SUMMED_REQUESTS = (32, 128, 512)
_HORIZONS = (0.25, 1.0, 2.0)
"""Steps by which the KV cache is forecast ahead, as multiples of the mean output length."""
_RUNNING_REQUESTS = 128
_FORECASTS = 200
_BLOCK_SIZE = 16
_TIMED_CALLS = 3_000
_LONG_PROMPT = "Summarise what the committee said about the budget of 1998, please. " * 30
_PAPER_TOKENS_PER_SECOND = 2_370
"""Output tokens per second of Llama-2-13B on four L20 in TD-Pipe's paper."""
_PAPER_MEAN_LENGTH = 415
"""Mean output length of ShareGPT in TD-Pipe's paper."""


def demo_rows(
    count: int, split: Split, max_tokens: int, seed: int
) -> tuple[list[PromptFeatures], TrainingRows]:
    """Draw requests of the demo model's tasks, with the lengths of the right answers."""
    random = Random(seed)
    streams = {
        task: small_talk(seed) if task == "small talk" else examples(task, split, seed)
        for task in TASK_SHARES
    }
    tasks = random.choices(list(TASK_SHARES), list(TASK_SHARES.values()), k=count)
    drawn = [next(streams[task]) for task in tasks]
    features = [
        PromptFeatures(
            len(each.prompt.encode()) + 3, max_tokens, text=extract_text_features(each.prompt)
        )
        for each in drawn
    ]
    # One token per byte, and the end token.
    return features, _rows(features, [len(each.answer.encode()) + 1 for each in drawn])


def trace_rows(
    file: Path, count: int, max_tokens: int, seed: int
) -> tuple[list[PromptFeatures], TrainingRows]:
    """Draw requests of a trace, of which only the lengths are known."""
    drawn = sample(read_trace(file, MAX_PROMPT_TOKENS), count, seed, arrivals=False)
    features = [PromptFeatures(each.prompt_tokens, max_tokens) for each in drawn]
    return features, _rows(features, [each.output_tokens for each in drawn])


def _rows(features: list[PromptFeatures], output_tokens: list[int]) -> TrainingRows:
    tenants = TenantHistory()
    max_tokens = np.array([each.max_tokens for each in features])
    lengths = np.minimum(output_tokens, max_tokens)
    vectors = np.stack([feature_vector(each, tenants) for each in features])
    return TrainingRows(vectors, lengths, lengths < max_tokens, max_tokens)


def forecast_errors(rows: TrainingRows, outcomes: OutcomeRows, seed: int) -> list[float]:
    """Measure how far the KV forecast is off when it uses predicted lengths.

    Args:
        rows: Requests with their actual lengths.
        outcomes: [n, outcomes] predicted lengths.
        seed: Seed for the choice of running requests.

    Returns:
        Root mean square error of the forecast KV blocks at each of `_HORIZONS`, as a share of the blocks in use now.
    """
    random = np.random.default_rng(seed)
    steps = [round(share * rows.lengths.mean()) for share in _HORIZONS]
    forecast = KVForecast(int(rows.max_tokens.max()), _BLOCK_SIZE, skew=0)
    points = [0, *np.searchsorted(forecast.steps, steps).tolist()]
    prompts = np.rint(np.exp(rows.vectors[:, 0])).astype(np.int32)
    errors = []
    for _ in range(_FORECASTS):
        # At any moment, a request is running with a probability in proportion to its output length.
        running = random.choice(len(rows), _RUNNING_REQUESTS, p=rows.lengths / rows.lengths.sum())
        generated = random.integers(1, rows.lengths[running] + 1).astype(np.int32)
        in_use = prompts[running] + generated
        max_tokens = rows.max_tokens[running].astype(np.int32)

        def blocks(
            lengths: OutcomeRows,
            in_use: np.ndarray = in_use,
            generated: np.ndarray = generated,
            max_tokens: np.ndarray = max_tokens,
        ) -> FloatArray:
            given: np.ndarray = lengths.astype(np.int32)
            return forecast.of_running(in_use, generated, max_tokens, given).mean[points]

        actual = blocks(rows.lengths[running][:, None])
        errors.append((blocks(outcomes[running]) - actual)[1:] / actual[0])
    return [float(each) for each in np.sqrt((np.array(errors) ** 2).mean(axis=0))]


def microseconds(action: Callable[[int], object]) -> tuple[float, float]:
    """Time single calls of `action` and return the median and the 99th percentile."""
    times = []
    for number in range(_TIMED_CALLS):
        start = time.perf_counter()
        action(number)
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times), statistics.quantiles(times, n=100)[-1]


class BlockedTrainer:
    """A trainer that does no work and never finishes, so that only the engine's own work is timed."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def train(self, rows: TrainingRows, incumbent: LengthModel | None) -> Evaluation:  # noqa: ARG002
        """Wait for `stop`.

        Raises:
            TrainingFailedError: Always, once the trainer is stopped.
        """
        self._stopped.wait()
        raise TrainingFailedError("stopped")

    def stop(self) -> None:
        """Let `train` return."""
        self._stopped.set()


def costs_of(model: LengthModel, features: list[PromptFeatures]) -> dict[str, tuple[float, float]]:
    """Measure the microseconds that each part of a prediction costs the engine, see `microseconds`."""
    predictor = CatBoostPredictor(model, BlockedTrainer())
    text_part = f"reading a text of {len(_LONG_PROMPT):,} characters, outside of the event loop"
    costs = {
        text_part: microseconds(lambda _: extract_text_features(_LONG_PROMPT)),
        "predicting": microseconds(lambda n: predictor.predict(features[n % len(features)])),
        "learning from the finished request": microseconds(
            lambda n: predictor.observe(features[n % len(features)], 1 + n, complete=True)
        ),
    }
    predictor.close()
    return costs


def cost_table(costs: dict[str, tuple[float, float]]) -> str:
    """Format the costs, and their sum as a share of the paper's run."""
    lines = ["| work per request | median us | p99 us |", "|---|---|---|"]
    lines += [f"| {name} | {median:.0f} | {p99:.0f} |" for name, (median, p99) in costs.items()]
    seconds = sum(median for median, _ in costs.values()) / 1e6
    share = seconds * _PAPER_TOKENS_PER_SECOND / _PAPER_MEAN_LENGTH
    total = (
        f"Together {share:.3%} of the time per request on a node that generates {_PAPER_TOKENS_PER_SECOND:,} output "
        f"tokens per second, {_PAPER_MEAN_LENGTH} per request (TD-Pipe's paper: 0.153%)."
    )
    return "\n".join([*lines, "", total])


@dataclass(frozen=True, slots=True)
class PredictorErrors:
    """Errors of one predictor on the held-out requests."""

    score: Score
    sums: tuple[float, ...]
    """Error of the summed length at each of `_SUMMED_REQUESTS`, as a share of the sum."""
    forecast: tuple[float, ...]
    """Errors of the KV forecast, see `forecast_errors`."""


def evaluate(predict: Predictor, held_out: TrainingRows, seed: int) -> PredictorErrors:
    """Measure the errors of a predictor on held-out requests."""
    outcomes = predict(held_out)
    score = score_outcomes(outcomes, held_out.lengths)
    sums = tuple(score.sum_error(count) for count in _SUMMED_REQUESTS)
    return PredictorErrors(score, sums, tuple(forecast_errors(held_out, outcomes, seed)))


def error_table(errors: dict[str, PredictorErrors]) -> str:
    """Format one row per predictor."""
    header = [
        "predictor",
        *(f"sum of {count}" for count in _SUMMED_REQUESTS),
        "bias",
        "pinball, tokens",
        *(f"KV in {share:g} mean lengths" for share in _HORIZONS),
    ]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, each in errors.items():
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
    """Train and evaluate all predictors and print a section for a page of `docs/benchmarks/`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trace", type=Path, help="CSV file of lengths to use instead of the demo model's prompts"
    )
    parser.add_argument("--rows", type=int, default=4_000, help="number of requests to train on")
    parser.add_argument(
        "--held-out", type=int, default=4_000, help="number of other requests to evaluate on"
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        help="max_tokens of every request; default: 512, or 2048 for a trace",
    )
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser)
    args = parser.parse_args()
    file = open_results_file(args.json, "length_prediction")
    try:
        training, held_out, features = _data(args)
    except TDPipeError as error:
        sys.exit(str(error))
    classes, model = FiveClasses(training), train(training, threads=-1)
    predictors: dict[str, Predictor] = {
        "always the mean": mean_predictor(training),
        "five classes": classes,
        "quantiles of the logarithm": LogQuantiles(training),
        "tdpipe": lambda rows: model.outcomes(rows.vectors, rows.max_tokens),
        "oracle": oracle,
    }
    source = f"lengths of {args.trace.name}" if args.trace else "prompts of the demo model's tasks"
    print(file.heading)
    print(
        f"Trained on {len(training)} requests and evaluated on {len(held_out)} others: {source}, "
        f"{held_out.lengths.mean():.0f} output tokens on average. Errors are root mean squares; the five classes are "
        f"predicted correctly for {classes.accuracy(held_out):.1%}.\n"
    )
    errors = {name: evaluate(predict, held_out, args.seed) for name, predict in predictors.items()}
    costs = costs_of(model, features)
    print(f"{error_table(errors)}\n\n{cost_table(costs)}")
    file.write({"predictors": errors, "microseconds": costs})


def _data(args: argparse.Namespace) -> tuple[TrainingRows, TrainingRows, list[PromptFeatures]]:
    if args.trace:
        features, rows = trace_rows(
            args.trace, args.rows + args.held_out, args.max_tokens or 2_048, args.seed
        )
        return rows.select(slice(args.rows)), rows.select(slice(args.rows, None)), features
    max_tokens = args.max_tokens or 512
    features, training = demo_rows(args.rows, Split.TRAIN, max_tokens, args.seed)
    _, held_out = demo_rows(args.held_out, Split.HELD_OUT, max_tokens, args.seed)
    return training, held_out, features


if __name__ == "__main__":
    main()
