"""Compares the throughput of the attention backends on this machine.

    python -m benchmarks.attention_backends --threads 1 --json RESULT.json

Backends take turns on the same batch, so that a machine that slows down affects both equally; the table has the ratio
of medians and the spread of the ratios of the turns. Calls go through the KV caches of several layers, as in a model's
forward pass, so that the CPU caches are as cold as in use. GB/s counts the keys and values that the rows need once;
GF/s counts the multiplications and additions of visible keys only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch

from benchmarks.results_file import add_json_option, open_results_file
from tdpipe.model.attention import AttentionBackend, BatchLayout, LayerKV, make_backend
from tdpipe.model.kv_cache import advise_huge_pages

_BLOCK_SIZE = 16


@dataclass(frozen=True, slots=True)
class Case:
    """A batch in which each row computes `queries` tokens and has about `context` tokens of context."""

    name: str
    rows: int
    queries: int
    context: int


_CASES = (
    Case("decode B=1", 1, 1, 256),
    Case("decode B=8", 8, 1, 256),
    Case("decode B=64", 64, 1, 256),
    Case("decode B=256", 256, 1, 256),
    Case("prefill 8x64", 8, 64, 64),
    Case("prefill 1x512", 1, 512, 512),
    Case("chunk 256 after 768", 1, 256, 1024),
    Case("prefill 1x2048", 1, 2048, 2048),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Measurements of one case."""

    case: str
    dtype: str
    sdpa: float
    """Median seconds of the sdpa backend."""
    cpu: float
    """Median seconds of the cpu backend."""
    rate: float
    """Throughput of the cpu backend."""
    unit: str
    """Unit of `rate`."""
    min_ratio: float
    """Lowest ratio of the turns, sdpa to cpu."""
    max_ratio: float
    """Highest ratio of the turns, sdpa to cpu."""

    def __str__(self) -> str:
        return (
            f"| {self.case} | {self.dtype} | {self.sdpa * 1e3:.3f} | {self.cpu * 1e3:.3f} "
            f"| {self.rate:.1f} {self.unit} "
            f"| {self.sdpa / self.cpu:.2f} ({self.min_ratio:.2f}-{self.max_ratio:.2f}) |"
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one attention call, and a KV cache for each layer."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    layout: BatchLayout
    layers: list[LayerKV]
    useful_bytes: int
    useful_flops: int


def make_batch(case: Case, args: argparse.Namespace, dtype: torch.dtype) -> Batch:
    """Return random tensors; contexts of decode rows vary by half around that of the case."""
    generator = torch.Generator().manual_seed(case.rows)
    contexts = torch.full((case.rows,), case.context)
    if case.queries == 1:
        low, high = case.context // 2, case.context * 3 // 2 + 1
        contexts = torch.randint(low, high, (case.rows,), generator=generator)
    needs = (contexts + _BLOCK_SIZE - 1) // _BLOCK_SIZE
    blocks = torch.randperm(int(needs.sum()), generator=generator)
    tables = torch.zeros(case.rows, int(needs.max()), dtype=torch.int32)
    slots: list[torch.Tensor] = []
    taken = 0
    for row, (need, context) in enumerate(zip(needs.tolist(), contexts.tolist(), strict=True)):
        table = blocks[taken : taken + need]
        taken += need
        tables[row, :need] = table
        positions = torch.arange(context - case.queries, context)
        slots.append(table[positions // _BLOCK_SIZE] * _BLOCK_SIZE + positions % _BLOCK_SIZE)
    tokens = case.rows * case.queries
    visible_keys = case.queries * int(contexts.sum()) - case.rows * sum(range(case.queries))
    layout = BatchLayout(
        query_start=torch.arange(0, tokens + 1, case.queries, dtype=torch.int32),
        context_len=contexts.int(),
        block_tables=tables,
        slot_mapping=torch.cat(slots),
        block_size=_BLOCK_SIZE,
        rows=case.rows,
        tokens=tokens,
        max_query=case.queries,
        max_context=int(contexts.max()),
    )
    shape = (len(blocks), _BLOCK_SIZE, args.kv_heads, args.head_dim)
    layers: list[LayerKV] = []
    for _ in range(args.layers):
        pair = [torch.empty(shape, dtype=dtype) for _ in range(2)]
        for tensor in pair:
            advise_huge_pages(tensor)
            tensor.normal_(generator=generator)
        layers.append(LayerKV(*pair))
    return Batch(
        query=torch.randn(tokens, args.query_heads, args.head_dim, generator=generator).to(dtype),
        key=torch.randn(tokens, args.kv_heads, args.head_dim, generator=generator).to(dtype),
        value=torch.randn(tokens, args.kv_heads, args.head_dim, generator=generator).to(dtype),
        layout=layout,
        layers=layers,
        useful_bytes=2 * int(contexts.sum()) * args.kv_heads * args.head_dim * dtype.itemsize,
        useful_flops=4 * visible_keys * args.query_heads * args.head_dim,
    )


def seconds_per_layer(backend: AttentionBackend, batch: Batch) -> float:
    """Return the wall time of one pass over all layers, divided by their number."""
    scale = batch.query.shape[2] ** -0.5
    start = time.perf_counter()
    for layer in batch.layers:
        backend.attend(
            batch.query, batch.key, batch.value, layer, batch.layout,
            scale=scale, sliding_window=None, softcap=None,
        )  # fmt: skip
    return (time.perf_counter() - start) / len(batch.layers)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9, help="number of turns per backend")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--query-heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    add_json_option(parser)
    return parser.parse_args()


def measure(case: Case, args: argparse.Namespace, dtype: torch.dtype) -> Row:
    """Measure both backends in turns on a case."""
    backends = [make_backend(name, torch.device("cpu")) for name in ("sdpa", "cpu")]
    batch = make_batch(case, args, dtype)
    for backend in backends:
        seconds_per_layer(backend, batch)
    turns = [
        tuple(seconds_per_layer(backend, batch) for backend in backends)
        for _ in range(args.repeats)
    ]
    sdpa, cpu = (statistics.median(times) for times in zip(*turns, strict=True))
    ratios = [first / second for first, second in turns]
    prefill = case.queries > 1
    return Row(
        case.name,
        str(dtype).removeprefix("torch."),
        sdpa,
        cpu,
        (batch.useful_flops if prefill else batch.useful_bytes) / cpu / 1e9,
        "GF/s" if prefill else "GB/s",
        min(ratios),
        max(ratios),
    )


def main() -> None:
    """Measure, and print a section for a page of `docs/benchmarks/`."""
    args = parse_arguments()
    file = open_results_file(args.json, "attention_backends")
    torch.set_num_threads(args.threads)
    heads = f"{args.query_heads} query and {args.kv_heads} KV heads of {args.head_dim}"
    print(file.heading)
    print(f"{heads}, {args.threads} threads, one layer, medians of {args.repeats} turns.\n")
    print("| batch | type | sdpa ms | cpu ms | cpu rate | sdpa / cpu (min-max of the turns) |")
    print("|---|---|---|---|---|---|")
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for case in _CASES:
            if args.case in case.name:
                rows.append(measure(case, args, dtype))
                print(rows[-1], flush=True)
    file.write(rows)


if __name__ == "__main__":
    main()
