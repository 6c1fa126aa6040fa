"""Storage of a length model as plain arrays in numpy's .npz format, which cannot contain code."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from tdpipe.core.errors import SettingsError
from tdpipe.core.lengths import OUTCOMES
from tdpipe.prediction.features import FEATURE_NAMES
from tdpipe.prediction.length_model import LengthModel
from tdpipe.prediction.tree_ensemble import TreeEnsemble

if TYPE_CHECKING:
    from pathlib import Path

_REMEDY = "give a file that was written by tdpipe train-predictor"


def encode_model(model: LengthModel) -> bytes:
    """Return the content of a model file."""
    stream = io.BytesIO()
    np.savez(
        stream,
        names=np.array(FEATURE_NAMES),
        inputs=model.trees.inputs,
        borders=model.trees.borders,
        leaves=model.trees.leaves,
        bias=np.array(model.trees.bias),
        levels=model.bucket_edges,
        shapes=model.bucket_spreads,
    )
    return stream.getvalue()


def decode_model(content: bytes) -> LengthModel:
    """Read a model from the content of a model file.

    Raises:
        ValueError: The content is not a model, or the model was trained on other features. The text completes a
            sentence that starts with the file's name.
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
        edges, spreads = arrays["levels"].astype(np.float64), arrays["shapes"].astype(np.float32)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError("is not a length model") from error
    if names != FEATURE_NAMES:
        raise ValueError("was written by a version of tdpipe that uses other features")
    trees_and_depth = trees.inputs.shape
    consistent = (
        trees.inputs.ndim == 2
        and trees.borders.shape == trees_and_depth
        and trees.leaves.shape == (trees_and_depth[0], 1 << trees_and_depth[1])
        and bool(((trees.inputs >= 0) & (trees.inputs < len(FEATURE_NAMES))).all())
        and edges.ndim == 1
        and spreads.shape == (len(edges) + 1, OUTCOMES)
    )
    if not consistent:
        raise ValueError("is not a length model: the shapes of its arrays do not match")
    return LengthModel(trees, edges, spreads)


def read_model(file: Path, setting: str) -> LengthModel:
    """Read a model file.

    Args:
        file: Path of the file.
        setting: Name of the setting that gives the path, for error messages.

    Raises:
        SettingsError: The file cannot be read or is not a model that this version can use.
    """
    try:
        return decode_model(file.read_bytes())
    except OSError as error:
        raise SettingsError(setting, f"{file}: {error.strerror}", _REMEDY) from error
    except ValueError as error:
        raise SettingsError(setting, f"{file} {error}", _REMEDY) from error
