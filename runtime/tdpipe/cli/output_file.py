"""Output files of commands that run for minutes.

They are checked before the run, because a result that cannot be written is lost.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tdpipe.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

_PICTURE_SUFFIXES = (".png", ".svg", ".pdf", ".jpg")


def check_picture(file: Path | None, option: str) -> None:
    """Refuse a picture that could not be written, or whose format is not supported.

    Args:
        file: picture to be written later; None is no picture.
        option: command-line option that named it, for errors.

    Raises:
        SettingsError: the name has no suffix of a picture, or `check_output` refuses the file.
    """
    check_output(file, option)
    if file is not None and file.suffix.lower() not in _PICTURE_SUFFIXES:
        problem = f"{file.name} is not the name of a picture"
        raise SettingsError(option, problem, f"end it with one of {', '.join(_PICTURE_SUFFIXES)}")


def write_output(file: Path, content: bytes, option: str) -> None:
    """Write a result to a file that `check_output` has accepted.

    Raises:
        SettingsError: the file cannot be written, for example because the disk is full.
    """
    try:
        file.write_bytes(content)
    except OSError as error:
        raise SettingsError(option, f"{file}: {error.strerror}", "name another file") from error


def check_output(file: Path | None, option: str) -> None:
    """Refuse a file that could not be written.

    Args:
        file: file to be written later; None is no file.
        option: command-line option that named it, for errors.

    Raises:
        SettingsError: the file is a directory, its directory does not exist, or it may not be written.
    """
    if file is None:
        return
    if not file.parent.is_dir():
        raise SettingsError(option, f"no such directory: {file.parent}", "create it first")
    if file.is_dir():
        raise SettingsError(option, f"{file} is a directory", "name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise SettingsError(option, f"{file} is not writable", "name another file")
