"""The folder for the files of Ray's processes, so that each start takes its files away with it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tdpipe.core.errors import SettingsError

_FOLDER_PREFIX = "ray-"
_MAX_SOCKET_PATH = 107
"""Characters of a Unix socket's path on Linux."""
_RAY_PATH_CHARACTERS = 76
"""Characters that Ray and the folder's own name add to the path of a socket in the folder for temporary files."""


def make_folder() -> Path:
    """Create a folder for the files of Ray's processes.

    Raises:
        SettingsError: its path would be too long for the sockets in it.
    """
    parent = tempfile.gettempdir()
    longest = _MAX_SOCKET_PATH - _RAY_PATH_CHARACTERS
    if len(parent) > longest:
        problem = (
            f"{parent} has {len(parent)} characters, too many for the sockets that Ray puts there"
        )
        raise SettingsError("TMPDIR", problem, f"set a folder of at most {longest} characters")
    return Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX))
