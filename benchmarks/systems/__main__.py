"""The process in which one system is measured: a job on stdin, its run into the file named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.systems.job import Job
from tdpipe.core.errors import TDPipeError

if TYPE_CHECKING:
    from benchmarks.systems.job import Run


def main() -> None:
    """Run the job; an expected error is one line and exit status 1."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        run = _run(job)
    except TDPipeError as error:
        sys.exit(f"{job.system.name}: {error}")
    Path(sys.argv[1]).write_bytes(msgspec.json.encode(run))


def _run(job: Job) -> Run:
    # Each process imports only what it measures.
    match job.system.engine:
        case "tdpipe":
            from benchmarks.systems.engine import run_engine

            return run_engine(job)
        case "generate_batch":
            from benchmarks.systems.generate_batch import run_generate_batch

            return run_generate_batch(job)
        case "vllm":
            from benchmarks.systems.vllm_peer import run_vllm

            return run_vllm(job)
        case "llama_cpp":
            from benchmarks.systems.llama_cpp_peer import run_llama_cpp

            return run_llama_cpp(job)


if __name__ == "__main__":
    main()
