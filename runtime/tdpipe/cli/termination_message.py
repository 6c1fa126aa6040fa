"""The reason of the process's end, in a form that its supervisor reads from a file.

Kubernetes shows it in the state of the container, so that nobody has to search the log for it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdpipe.core.errors import ExitCode, TDPipeError
from tdpipe.core.settings.variables import variable_name

_log = logging.getLogger(__name__)
_MAX_BYTES = 4096
"""Size that Kubernetes reads at most."""
_CAUSES = {
    ExitCode.ERROR: "Error",
    ExitCode.CONFIGURATION: "Configuration",
    ExitCode.WORKERS_MISSING: "WorkersMissing",
    ExitCode.OUT_OF_MEMORY: "OutOfMemory",
    ExitCode.RECOVERY_BUDGET: "RecoveryBudget",
}
_VARIABLE = variable_name("process", "termination_message_path")


class TerminationMessage:
    """The file that the reason goes to. Before the settings are read, the environment names it."""

    def __init__(self) -> None:
        path = os.environ.get(_VARIABLE)
        self.path = Path(path) if path else None

    def write(self, error: BaseException) -> None:
        """Write the reason; a file that cannot be written is only logged."""
        if self.path is None:
            return
        try:
            self.path.write_bytes(termination_message(error))
        except OSError as problem:
            _log.error("the reason of the end cannot be written: %s", problem)


@contextmanager
def termination_message_on_error() -> Iterator[TerminationMessage]:
    """Write the reason if the block ends with an error. The block sets the path when it has read the settings."""
    message = TerminationMessage()
    try:
        yield message
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        message.write(error)
        raise


def termination_message(error: BaseException) -> bytes:
    """Return the reason as JSON of at most 4 kB.

    Args:
        error: the error that the process ends with.
    """
    code, stage = ExitCode.ERROR, None
    text = str(error) or type(error).__name__
    if isinstance(error, TDPipeError):
        code, stage = error.exit_code, error.stage
    fields = {"cause": _CAUSES[code], "stage": stage, "exitCode": int(code), "message": ""}
    room = _MAX_BYTES - len(json.dumps(fields))
    # A character takes up to six bytes in JSON, twice that outside the basic plane, so the size is measured.
    while len(json.dumps(text)) - 2 > room:
        text = text[: len(text) * 9 // 10] + "…"
    return json.dumps(fields | {"message": text}).encode()
