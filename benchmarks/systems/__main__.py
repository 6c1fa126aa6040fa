"""Process that measures one system: it reads a `RunConfig` from stdin and writes a `RunResult` to the named file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.systems.run import RunConfig
from tdpipe.core.errors import TDPipeError

if TYPE_CHECKING:
    from benchmarks.systems.run import RunResult


def main() -> None:
    """Measure the system; an expected error is printed in one line and the exit status is 1."""
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=RunConfig)
    try:
        run = _run(config)
    except TDPipeError as error:
        sys.exit(f"{config.system.name}: {error}")
    Path(sys.argv[1]).write_bytes(msgspec.json.encode(run))


def _run(config: RunConfig) -> RunResult:
    # The imports are local, because no interpreter has all of these engines.
    match config.system.engine:
        case "tdpipe":
            from benchmarks.systems.tdpipe_engine import run_engine

            return run_engine(config)
        case "generate_batch":
            from benchmarks.systems.transformers_engine import run_generate_batch

            return run_generate_batch(config)
        case "vllm":
            from benchmarks.systems.vllm_engine import run_vllm

            return run_vllm(config)
        case "llama_cpp":
            from benchmarks.systems.llama_cpp_engine import run_llama_cpp

            return run_llama_cpp(config)


if __name__ == "__main__":
    main()
