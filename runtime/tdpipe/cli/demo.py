"""The demo model, which is served when no model is given."""

from __future__ import annotations

from pathlib import Path

import tdpipe
from tdpipe.core.errors import SettingsError
from tdpipe.core.settings import Settings

_CHECKPOINT = Path("examples", "demo_model", "checkpoint")


def with_model(settings: Settings) -> Settings:
    """`settings` with the model's path and name filled in.

    Raises:
        SettingsError: no model is given, and the demo model is not in this installation.
    """
    path, name = settings.model.path, settings.model.name
    if path is None:
        path, name = _demo_checkpoint(), name or "demo"
    model = settings.model.model_copy(update={"path": path, "name": name or path.resolve().name})
    return settings.model_copy(update={"model": model})


def _demo_checkpoint() -> Path:
    repository = Path(tdpipe.__file__).resolve().parents[2]
    path = repository / _CHECKPOINT
    if not (path / "config.json").is_file():
        raise SettingsError(
            "model.path", "no model is given and the demo model is not here", "pass --model DIR"
        )
    return path
