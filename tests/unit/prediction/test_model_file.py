from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tdpipe.core.errors import SettingsError
from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction import model_file
from tdpipe.prediction.features import FEATURE_NAMES
from tdpipe.prediction.length_model import LengthModel
from tdpipe.prediction.model_file import decode_model, encode_model, read_model
from tdpipe.prediction.tree_ensemble import TreeEnsemble

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model() -> LengthModel:
    random = np.random.default_rng(0)
    trees = TreeEnsemble(
        random.integers(len(FEATURE_NAMES), size=(5, 3)).astype(np.int32),
        random.normal(size=(5, 3)).astype(np.float32),
        random.normal(size=(5, 8)).astype(np.float32),
        4.0,
    )
    spreads = np.sort(random.random((2, OUTCOMES)).astype(np.float32), axis=1)
    spreads[1, -1] = np.inf
    return LengthModel(trees, np.array([20.0]), spreads)


def test_a_model_predicts_the_same_after_writing_and_reading(
    tmp_path: Path, model: LengthModel
) -> None:
    file = tmp_path / "lengths.npz"
    file.write_bytes(encode_model(model))
    rows = np.random.default_rng(1).normal(size=(50, len(FEATURE_NAMES))).astype(np.float32)
    max_tokens = np.full(50, 1000)
    read = read_model(file, "predictor.path")
    assert (read.outcomes(rows, max_tokens) == model.outcomes(rows, max_tokens)).all()


def test_a_file_without_a_model_is_rejected_with_the_name_of_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "lengths.npz"
    with pytest.raises(SettingsError, match=r"^predictor.path: .*lengths.npz: No such file"):
        read_model(file, "predictor.path")
    for content in (b"", b"PK\x03\x04 broken", b"\x80\x04pickle"):
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=r"^predictor.path: .* is not a length model; "):
            read_model(file, "predictor.path")


def test_arrays_with_inconsistent_shapes_are_rejected(model: LengthModel) -> None:
    with np.load(io.BytesIO(encode_model(model))) as stored:
        arrays = dict(stored)
    for name, value in (
        ("inputs", arrays["inputs"] + len(FEATURE_NAMES)),
        ("leaves", arrays["leaves"][:, :4]),
        ("shapes", arrays["shapes"][:1]),
    ):
        stream = io.BytesIO()
        np.savez(stream, **(arrays | {name: value}))
        with pytest.raises(ValueError, match="shapes of its arrays do not match"):
            decode_model(stream.getvalue())


def test_a_model_for_other_features_is_rejected(
    monkeypatch: pytest.MonkeyPatch, model: LengthModel
) -> None:
    content = encode_model(model)
    monkeypatch.setattr(model_file, "FEATURE_NAMES", FEATURE_NAMES[:-1])
    with pytest.raises(ValueError, match="uses other features"):
        decode_model(content)
