"""A profile file is read back as it was written, and errors in a file are reported in one line."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tdpipe.core.errors import SettingsError
from tdpipe.core.latencies import Latencies
from tdpipe.core.model_sizes import ModelSizes
from tdpipe.core.profile import (
    FitError,
    Profile,
    ProfiledMixing,
    ProfiledStage,
    Provenance,
    read_profile_file,
    write_profile_file,
)

if TYPE_CHECKING:
    from pathlib import Path

MODEL = ModelSizes(
    name="demo",
    layers=4,
    hidden_size=64,
    intermediate_size=256,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocab_size=99,
)


def make_profile(**parts: object) -> Profile:
    provenance = Provenance(
        date=datetime.date(2026, 1, 31),
        tdpipe="0.1",
        model=MODEL,
        devices=("A CPU", "A CPU"),
        dtype="float32",
        partition=(3, 1),
        threads_per_stage=1,
        kv_tokens=4096,
    )
    stage = ProfiledStage(tokens=(1, 128, 129), seconds=(1e-7, 0.25, 0.5), per_kv_token=1.25e-8)
    given: dict[str, Any] = {
        "provenance": provenance,
        "stages": (stage, stage.model_copy(update={"per_kv_token": 0.0})),
        "mixing": ProfiledMixing(seconds=0.001, decode_context=1.5),
        "chunk_tile": 64,
        "latencies": Latencies(step=1e-4, activations=2e-5, activation_token=3e-8),
        "fit_error": FitError(mean=0.01, worst=0.1),
    }
    return Profile(**(given | parts))


@pytest.mark.parametrize("name", ["profile.yaml", "profile.json"])
def test_a_profile_is_read_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    write_profile_file(tmp_path / name, make_profile())
    assert read_profile_file(tmp_path / name, "--profile") == make_profile()


def test_a_profile_without_a_fit_error_is_read_back(tmp_path: Path) -> None:
    write_profile_file(tmp_path / "p.yaml", make_profile(fit_error=None))
    assert read_profile_file(tmp_path / "p.yaml", "--profile").fit_error is None


def change(content: dict[str, Any], where: str, value: object) -> None:
    *path, last = where.split(".")
    part: Any = content
    for name in path:
        part = part[int(name)] if name.isdigit() else part[name]
    part[last] = value


@pytest.mark.parametrize(
    ("where", "value", "says"),
    [
        ("version", 2, "version: "),
        ("stages.0.secondz", 1, "stages.0.secondz: unknown"),
        ("stages.1.tokens", [1, 5, 5], "stages.1: tokens must ascend from 1, but 5 follows 5"),
        ("stages.1.tokens", [0, 5, 6], "0 follows 0"),
        ("stages.1.tokens", [1, 5], "tokens has 2 entries and seconds has 3"),
        ("stages.0.seconds", [0.0, 1, 2], "seconds must be above 0"),
        ("stages.0.per_kv_token", -1, "stages.0.per_kv_token: "),
        ("stages.0.per_kv_token", float("nan"), "stages.0.per_kv_token: "),
        ("provenance.partition", [4], "provenance.partition has 1 stages, and the file has 2"),
        ("mixing.decode_context", 0.5, "mixing.decode_context: "),
        ("provenance.date", "soon", "provenance.date: "),
    ],
    ids=str,
)
def test_an_error_names_file_field_and_remedy(
    tmp_path: Path, where: str, value: object, says: str
) -> None:
    content = make_profile().model_dump(mode="json")
    change(content, where, value)
    file = tmp_path / "profile.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match="tdpipe profile") as caught:
        read_profile_file(file, "scheduler.profile")
    text = str(caught.value)
    assert text.startswith(f"scheduler.profile: {file}: ")
    assert says in text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["- 1", "stages: [1", ""])
def test_a_file_that_is_not_a_profile_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"^--profile: .*profile\.yaml"):
        read_profile_file(file, "--profile")


def test_a_missing_file_and_an_unwritable_one_are_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--profile: .*No such file"):
        read_profile_file(tmp_path / "none.yaml", "--profile")
    with pytest.raises(SettingsError, match=r"--output: .*No such file"):
        write_profile_file(tmp_path / "none" / "p.yaml", make_profile())


def test_models_of_equal_sizes_are_the_same_under_any_name() -> None:
    assert MODEL.same_sizes(replace(MODEL, name="other"))
    assert not MODEL.same_sizes(replace(MODEL, kv_heads=4))
