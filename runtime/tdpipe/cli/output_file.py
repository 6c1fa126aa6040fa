"""Files for what takes minutes to find: refused before, not when it is there and would be lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path


_PICTURES = (".png", ".svg", ".pdf", ".jpg")


def check_picture(file: Path | None, option: str) -> None:
    """Refuse a picture that could not be written, or of a format that nothing here draws; None is none.

    Raises:
        SettingsError: its name ends like no picture, or `check_output` refuses it.
    """
    check_output(file, option)
    if file is not None and file.suffix.lower() not in _PICTURES:
        problem = f"{file.name} is no name of a picture"
        raise SettingsError(option, problem, f"end it with one of {', '.join(_PICTURES)}")


def write_output(file: Path, content: bytes, option: str) -> None:
    """Write what was found; the file was checked before.

    Raises:
        SettingsError: the disk is full, say.
    """
    try:
        file.write_bytes(content)
    except OSError as error:
        raise SettingsError(option, f"{file}: {error.strerror}", "name another file") from error


def check_output(file: Path | None, option: str) -> None:
    """Refuse a file that could not be written; None is no file.

    Args:
        file: to be written later.
        option: which named it, for errors.

    Raises:
        SettingsError: it is a directory, lies in none, or may not be written.
    """
    if file is None:
        return
    if not file.parent.is_dir():
        raise SettingsError(option, f"no such directory: {file.parent}", "make it first")
    if file.is_dir():
        raise SettingsError(option, f"{file} is a directory", "name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise SettingsError(option, f"{file} may not be written", "name another file")
