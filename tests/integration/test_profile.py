"""A profile is measured on the pipeline that serves, and the engine accepts it for that pipeline only."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tdpipe.cli.app import main
from tdpipe.controller import pipeline_starter
from tdpipe.controller.start import plan_stages, start_engine
from tdpipe.core.errors import SettingsError
from tdpipe.core.profile import read_profile_file, write_profile_file
from tdpipe.core.sampling import SamplingParams
from tdpipe.core.settings import load_settings
from tests.support.checkpoints import tiny_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tdpipe.core.profile import Profile

CONFIG = """
pipeline: {host: in_process, partition: [3, 2]}
cache: {blocks: 256}
scheduler: {max_running: 16, token_budget: 128}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="module")
def measured(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Path of a profile, and the lines that the command printed."""
    folder = tmp_path_factory.mktemp("profile")
    config, output = folder / "tdpipe.yaml", folder / "profile.yaml"
    config.write_text(CONFIG)
    arguments = ["--model", str(model), "--config", str(config), "--output", str(output)]
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("tdpipe.cli.profile.typer.echo", lambda text, **_: lines.append(text))
        with pytest.raises(SystemExit) as ended:
            main(["profile", *arguments, "--seconds", "3"])
    assert ended.value.code == 0
    return output, "\n".join(lines)


def sections(model: Path, profile: Path, **changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    given: dict[str, dict[str, Any]] = {
        "model": {"path": model},
        "pipeline": {"host": "in_process", "partition": (3, 2)},
        "cache": {"blocks": 256},
        "scheduler": {"max_running": 16, "token_budget": 128, "profile": profile},
    }
    return {name: fields | changes.get(name, {}) for name, fields in given.items()}


def test_the_profile_contains_what_was_measured(measured: tuple[Path, str]) -> None:
    profile = read_profile_file(measured[0], "--profile")
    made = profile.provenance
    assert made.model.name == "tiny-llama"
    assert (made.partition, made.dtype, made.kv_tokens) == ((3, 2), "float32", 4096)
    assert len(profile.stages) == 2
    for stage in profile.stages:
        # At least the powers of two up to the token budget are measured.
        assert {1, 2, 4, 8, 16, 32, 64, 128} <= set(stage.tokens)
        assert list(stage.seconds) == sorted(stage.seconds)


def test_the_command_prints_the_fit_and_its_error(measured: tuple[Path, str]) -> None:
    text = measured[1]
    assert "tiny-llama in float32 on 2 stages" in text
    for kind in ("table", "decode", "chunk", "mixed"):
        assert any(line.startswith(kind) and "%" in line for line in text.splitlines()), kind
    assert str(measured[0]) in text


def test_the_engine_takes_its_costs_from_the_profile(
    model: Path, measured: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = read_profile_file(measured[0], "--profile")
    slow = profile.stages[0].model_copy(update={"tokens": (1, 2), "seconds": (7.0, 8.0)})
    marked = tmp_path / "marked.json"
    write_profile_file(marked, profile.model_copy(update={"stages": (slow, slow)}))

    def refuse(*_: object) -> None:
        raise AssertionError("costs are fitted although a profile is given")

    monkeypatch.setattr(pipeline_starter, "fit_cost", refuse)
    settings = load_settings(None, sections(model, marked))
    engine = start_engine(settings, plan_stages(settings), lambda _: None)
    try:
        assert engine._scheduler._view.cost.step_time(2, 0) == 8.0

        async def generate() -> int:
            stream = engine.submit((1, 2, 3), 4, SamplingParams(), frozenset(), "a")
            return sum([len(delta.tokens) async for delta in stream])

        assert asyncio.run(generate()) == 4
    finally:
        engine.close()


def with_other_model(profile: Profile) -> Profile:
    other = replace(profile.provenance.model, name="other", hidden_size=65)
    return profile.model_copy(
        update={"provenance": profile.provenance.model_copy(update={"model": other})}
    )


def with_other_dtype(profile: Profile) -> Profile:
    other = profile.provenance.model_copy(update={"dtype": "bfloat16"})
    return profile.model_copy(update={"provenance": other})


def with_other_device(profile: Profile) -> Profile:
    other = profile.provenance.model_copy(update={"devices": ("NVIDIA L20",) * 2})
    return profile.model_copy(update={"provenance": other})


def unchanged(profile: Profile) -> Profile:
    return profile


@pytest.mark.parametrize(
    ("change", "pipeline", "says"),
    [
        (unchanged, {"stages": 3, "partition": None}, "is of 2 stages, pipeline.stages is 3"),
        (unchanged, {"partition": (2, 3)}, "is of stages with 3,2 layers, not 2,3"),
        (with_other_model, {}, "is of other, whose sizes are not those of tiny-llama"),
        (
            unchanged,
            {"threads_per_stage": 2},
            "with 1 threads a stage, the stages compute with 2",
        ),
        (with_other_device, {}, "measured on NVIDIA L20, the stages compute on "),
        (with_other_dtype, {}, "measured in bfloat16, the stages compute in float32"),
    ],
    ids=str,
)
def test_a_profile_of_another_pipeline_is_rejected(
    model: Path,
    measured: tuple[Path, str],
    tmp_path: Path,
    change: Callable[[Profile], Profile],
    pipeline: dict[str, Any],
    says: str,
) -> None:
    file = tmp_path / "profile.yaml"
    write_profile_file(file, change(read_profile_file(measured[0], "--profile")))
    settings = load_settings(None, sections(model, file, pipeline=pipeline))
    with pytest.raises(SettingsError, match=r"^scheduler\.profile: .*tdpipe profile") as caught:
        start_engine(settings, plan_stages(settings), lambda _: None)
    assert says in str(caught.value)
