"""The scenario of a simulation: a node of known GPUs, or the stages of a profile file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tdpipe.cli.app import main
from tdpipe.cli.scenario_choice import choose_scenario, kv_room_remedy
from tdpipe.core.errors import SettingsError
from tdpipe.core.profile import write_profile_file
from tests.unit.core.test_profile import make_profile

if TYPE_CHECKING:
    from pathlib import Path

    from tdpipe.simulation.scenario import Scenario


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    write_profile_file(path, make_profile())
    return path


def choose(
    hardware: str | None = None,
    model: str | None = None,
    profile: Path | None = None,
    kv_bandwidth: float | None = None,
    kv_capacity: int | None = None,
) -> Scenario:
    return choose_scenario(
        hardware,
        model,
        option="--paced",
        profile=profile,
        kv_bandwidth=kv_bandwidth,
        kv_capacity=kv_capacity,
    )


def test_a_profile_of_stages_needs_nothing_else(profile: Path) -> None:
    scenario = choose(profile=profile)
    assert (scenario.stages, scenario.pipeline_kv_tokens) == (2, 4096)
    assert scenario.pipeline.step_time(129, 0) == pytest.approx(0.5)
    assert scenario.latencies.step == pytest.approx(1e-4)
    assert scenario.latencies.activation_token == pytest.approx(3e-8)
    assert "A CPU" in scenario.assumptions[0]
    assert choose(profile=profile, kv_capacity=640).pipeline_kv_tokens == 640


def test_a_node_of_known_gpus_needs_a_model() -> None:
    assert choose("4xL20", "llama-2-13b").stages == 4
    with pytest.raises(SettingsError, match=r"^--model: is missing; .*tdpipe profile"):
        choose("4xL20")
    with pytest.raises(SettingsError, match=r"^--paced: is missing; give a value such as 4xL20"):
        choose(model="llama-2-13b")
    with pytest.raises(SettingsError, match=r"^--paced: no GPU called 'B20'"):
        choose("4xB20", "llama-2-13b")
    with pytest.raises(SettingsError, match=r"^--paced: .* GiB for weights and KV cache"):
        choose("1xL20", "llama-2-70b")
    with pytest.raises(SettingsError, match=r"^--paced: 41 GPUs cannot share the 40 layers"):
        choose("41xL20", "llama-2-13b")


def test_what_a_profile_has_must_not_be_given_too(profile: Path) -> None:
    for option, given in (
        ("--paced", {"hardware": "4xL20"}),
        ("--model", {"model": "llama-2-13b"}),
        ("--kv-bandwidth", {"kv_bandwidth": 700.0}),
    ):
        with pytest.raises(
            SettingsError, match=rf"^{option}: cannot be given together with demo\.yaml"
        ):
            choose(profile=profile, **given)


def test_a_profile_that_is_not_there_is_named_first(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^--profile: .*none\.json"):
        choose("4xL20", "llama-2-13b", profile=tmp_path / "none.json")


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


def test_simulate_takes_a_profile_and_leaves_tensor_parallelism_out(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(["simulate", "--profile", str(profile), "--requests", "5"], capsys)
    assert code == 0
    assert "demo on 2 stages" in out
    assert "hybrid" in out
    assert "tp-" not in out
    tensor = ["--policy", "tp-hybrid", "--requests", "5"]
    code, _, err = run(["simulate", "--profile", str(profile), *tensor], capsys)
    assert code == 2
    assert "tp-hybrid" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--paced: is missing"),
        (["--paced", "4xL20", "--model", "llama-2-13b", "--policy", "all"], "--policy"),
        (["--paced", "4xL20", "--model", "llama-2-13b", "--policy", "tp-hybrid"], "--policy"),
        (["--paced", "4xL20", "--model", "llama-2-13b", "--trace", "/none.csv"], "--trace"),
        (["--paced", "4xL20", "--model", "llama-2-13b", "--lengths", "all"], "oracle, classifier"),
        (
            [
                "--paced",
                "4xL20",
                "--model",
                "llama-2-13b",
                "--policy",
                "reference",
                "--budget",
                "64",
            ],
            "--budget: reference has no token budget; leave it out",
        ),
        (
            ["--paced", "4xL20", "--model", "llama-2-13b", "--kv-capacity", "640"],
            "--kv-capacity: a request needs up to",
        ),
    ],
    ids=str,
)
def test_bench_refuses_wrong_options_before_anything_starts(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(["bench", *arguments], capsys)
    assert code == 2
    assert says in err


def test_the_remedy_for_a_small_kv_cache_names_the_option_that_was_given() -> None:
    assert kv_room_remedy("--paced", None) == ("--paced", "give more GPUs")
    assert kv_room_remedy("--paced", 640) == ("--kv-capacity", "raise it")
