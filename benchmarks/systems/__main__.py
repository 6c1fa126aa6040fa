"""The process in which one system is measured: a job on stdin, its run into the file named."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from benchmarks.systems.job import Job
from tdpipe.core.errors import TDPipeError


def main() -> None:
    """Run the job; an expected error is one line and exit status 1."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        # Each process imports only what it measures.
        if job.system.policy is None:
            from benchmarks.systems.generate_batch import run_generate_batch

            run = run_generate_batch(job)
        else:
            from benchmarks.systems.engine import run_engine

            run = run_engine(job)
    except TDPipeError as error:
        sys.exit(f"{job.system.name}: {error}")
    Path(sys.argv[1]).write_bytes(msgspec.json.encode(run))


if __name__ == "__main__":
    main()
