from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.core.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tdpipe.yaml"


def test_flags_override_the_environment_which_overrides_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("pipeline: {stages: 3, threads_per_stage: 3, step_timeout: 3}")
    monkeypatch.setenv("TDPIPE_PIPELINE__STAGES", "4")
    monkeypatch.setenv("TDPIPE_PIPELINE__THREADS_PER_STAGE", "4")
    settings = load_settings(file, {"pipeline": {"stages": 5}}).pipeline
    assert (settings.stages, settings.threads_per_stage, settings.step_timeout) == (5, 4, 3)


@pytest.mark.parametrize("text", ["", "# nothing", "pipeline: {}"])
def test_a_file_without_settings_leaves_the_defaults(file: Path, text: str) -> None:
    file.write_text(text)
    assert load_settings(file).model_dump() == load_settings().model_dump()


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("TDPIPE_STAGES", "TDPIPE_PIPELINE__STAGES"),
        ("TDPIPE_PIPELIN__STAGES", "TDPIPE_PIPELINE__STAGES"),
        ("TDPIPE_PIPELINE_STAGES", "TDPIPE_PIPELINE__STAGES"),
        ("TDPIPE_PIPELINE__STAGE", "TDPIPE_PIPELINE__STAGES"),
        ("tdpipe_polcy", "TDPIPE_SCHEDULER__POLICY"),
        ("TDPIPE_PORT", "TDPIPE_SERVER__PORT"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str
) -> None:
    monkeypatch.setenv(variable, "4")
    with pytest.raises(SettingsError, match=rf"^{variable}: .* {nearest}$"):
        load_settings()


def test_variables_that_kubernetes_sets_for_a_service_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for service in ("TDPIPE", "TDPIPE_DEMO"):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_HTTP", "8000")
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.1:8000")
        monkeypatch.setenv(f"{service}_PORT_8000_TCP_ADDR", "10.0.0.1")
    assert load_settings().server.port == 8000


@pytest.mark.parametrize(
    ("text", "layers"), [("2,3", (2, 3)), ("[2, 3]", (2, 3)), ("5", (5,)), (" 2, 3 ", (2, 3))]
)
def test_a_variable_gives_the_partition_with_or_without_brackets(
    monkeypatch: pytest.MonkeyPatch, text: str, layers: tuple[int, ...]
) -> None:
    monkeypatch.setenv("TDPIPE_PIPELINE__PARTITION", text)
    assert load_settings().pipeline.partition == layers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pipelin: {}", r"^pipelin: no such setting; .*model, pipeline, cache"),
        ("pipeline: {stagez: 1}", r"^pipeline\.stagez: no such setting; .*stages, partition"),
        ("pipeline:", r"^pipeline: .* a section .*; write it like pipeline: \{stages: "),
        ("pipeline: {partition: {a: 1}}", r"^pipeline\.partition: .*; write it like \[2, 2\]"),
        ("pipeline: {partition: [2, two]}", r"^pipeline\.partition\.1: .*'two'"),
        ("pipeline: {partition: [2, true]}", r"^pipeline\.partition: .*true or false"),
        ("pipeline: {stages: true}", r"^pipeline\.stages: .*true or false; give a number"),
        ("cache: {memory: true}", r"^cache\.memory: .*true or false"),
        ("model: {name: no}", r"^model\.name: .*quote the word"),
        ("pipeline: {stages: 0}", r"^pipeline\.stages: .*1; got 0"),
        ("pipeline: {step_timeout: .inf}", r"^pipeline\.step_timeout: .*finite"),
        ("cache: {memory: .nan}", r"^cache\.memory: .*finite"),
        ("schema_version: 2", r"^schema_version: .*got 2"),
        ("- pipeline", r"tdpipe\.yaml: must be a mapping of sections; .*pipeline: \{stages: 2\}"),
        ("1: 2", r"tdpipe\.yaml: must be a mapping of sections"),
        ("pipeline:\n  stages: [1", r"tdpipe\.yaml: line 2: expected"),
    ],
)
def test_an_error_in_a_file_is_reported_in_one_line_with_a_remedy(
    file: Path, text: str, says: str
) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings(file)
    assert "\n" not in str(caught.value)


def test_a_section_variable_that_is_not_json_is_refused_with_an_example(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TDPIPE_MODEL", "/models/x")
    with pytest.raises(SettingsError, match=r'"model".*such as TDPIPE_PIPELINE__STAGES=2'):
        load_settings()


@pytest.mark.parametrize(
    ("section", "choice", "effective", "field", "value"),
    [
        ("scheduler", {}, {"policy": "temporal"}, "forecast_margin", 1.0),
        ("scheduler", {"policy": "hybrid"}, {"policy": "temporal"}, "switch_hysteresis", 2.0),
        ("scheduler", {"policy": "hybrid"}, {}, "tpot_target", 0.1),
        ("pipeline", {"host": "in_process"}, {}, "network_interface", "eth0"),
        ("pipeline", {"host": "in_process"}, {}, "start_timeout", 300.0),
    ],
)
def test_a_setting_without_effect_is_refused_only_when_it_is_given(
    section: str, choice: dict[str, str], effective: dict[str, str], field: str, value: object
) -> None:
    load_settings(None, {section: choice})
    load_settings(None, {section: effective | {field: value}})
    with pytest.raises(SettingsError, match=rf"^{section}\.{field}: has no effect .*leave it out"):
        load_settings(None, {section: choice | {field: value}})
