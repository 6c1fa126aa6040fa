"""A length model as a file of plain arrays (numpy's .npz), which can hold no code."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.errors import SettingsError
from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.input_vector import INPUTS
from tdpipe.prediction.length_model import LengthModel
from tdpipe.prediction.tree_ensemble import TreeEnsemble

if TYPE_CHECKING:
    from pathlib import Path

_REMEDY = "give a file made by tdpipe train-predictor"


def encode_model(model: LengthModel) -> bytes:
    """A file's content."""
    stream = io.BytesIO()
    np.savez(
        stream,
        names=np.array(INPUTS),
        inputs=model.trees.inputs,
        borders=model.trees.borders,
        leaves=model.trees.leaves,
        bias=np.array(model.trees.bias),
        levels=model.levels,
        shapes=model.shapes,
    )
    return stream.getvalue()


def decode_model(content: bytes) -> LengthModel:
    """The model in a file.

    Raises:
        ValueError: there is none, or it is for inputs of another version; the text says which.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        names = tuple(arrays["names"].tolist())
        trees = TreeEnsemble(
            arrays["inputs"].astype(np.int32),
            arrays["borders"].astype(np.float32),
            arrays["leaves"].astype(np.float32),
            float(arrays["bias"]),
        )
        levels, shapes = arrays["levels"].astype(np.float64), arrays["shapes"].astype(np.float32)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError("is no length model") from error
    if names != INPUTS:
        raise ValueError("was made by a version of tdpipe that reads prompts differently")
    trees_and_depth = trees.inputs.shape
    fits = (
        trees.inputs.ndim == 2
        and trees.borders.shape == trees_and_depth
        and trees.leaves.shape == (trees_and_depth[0], 1 << trees_and_depth[1])
        and bool(((trees.inputs >= 0) & (trees.inputs < len(INPUTS))).all())
        and levels.ndim == 1
        and shapes.shape == (len(levels) + 1, OUTCOMES)
    )
    if not fits:
        raise ValueError("is no length model: its arrays do not fit together")
    return LengthModel(trees, levels, shapes)


def read_model(file: Path, setting: str) -> LengthModel:
    """The model that `encode_model` made.

    Args:
        file: where it was written to.
        setting: which named the file, for errors.

    Raises:
        SettingsError: the file cannot be read or is no such model.
    """
    try:
        return decode_model(file.read_bytes())
    except OSError as error:
        raise SettingsError(setting, f"{file}: {error.strerror}", _REMEDY) from error
    except ValueError as error:
        raise SettingsError(setting, f"{file} {error}", _REMEDY) from error
