"""Errors that a person can act on.

Each says in one line what is wrong and how to fix it. The CLI prints that line and exits with its exit code; the
server turns it into an HTTP error in OpenAI's format. An error of a stage carries the stage's number to the controller.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Self


class ExitCode(IntEnum):
    """Exit codes of tdpipe's processes, by which a supervisor knows whether another try can help."""

    ENDED = 0
    """The process ended as asked."""
    ERROR = 1
    """Any error that has no code of its own."""
    CONFIGURATION = 2
    """A setting or the model cannot work, so another try will fail as well."""
    WORKERS_MISSING = 3
    """The processes on the other machines did not come in time."""
    OUT_OF_MEMORY = 4
    """A stage ran out of memory."""
    RECOVERY_BUDGET = 5
    """The stages failed more often than the settings allow."""


class TDPipeError(Exception):
    """Base of every error that tdpipe raises on purpose."""

    exit_code: ClassVar[ExitCode] = ExitCode.ERROR
    stage: int | None = None
    """Number of the stage that the error happened in."""

    def in_stage(self, stage: int) -> Self:
        """Note the stage that the error happened in, and return the error."""
        self.stage = stage
        return self

    def in_stage_of(self, cause: TDPipeError) -> Self:
        """Note the stage of another error, and return the error."""
        self.stage = cause.stage
        return self


class SettingsError(TDPipeError):
    """A setting cannot be used.

    Args:
        field: the setting's dotted name, such as `pipeline.stages`.
        problem: what is wrong with its value.
        remedy: what to do about it.
    """

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}; {remedy}")
        self.field = field
        self._parts = (field, problem, remedy)

    def __reduce__(self) -> tuple[type[SettingsError], tuple[str, str, str], dict[str, object]]:
        """Pickle the arguments, because processes send errors to each other and the text alone cannot restore one."""
        return type(self), self._parts, self.__dict__


class ModelError(TDPipeError):
    """A checkpoint cannot be loaded or is not supported; the text includes the remedy."""

    exit_code = ExitCode.CONFIGURATION


class RequestError(TDPipeError):
    """A request cannot be served as asked (HTTP 400).

    Args:
        message: what is wrong and the remedy.
        param: name of the invalid field, if it is a single field.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class PipelineError(TDPipeError):
    """The pipeline failed; the text includes the failing stage's traceback if there is one."""


class StageMemoryError(PipelineError):
    """A stage ran out of memory."""

    exit_code = ExitCode.OUT_OF_MEMORY


class WorkersMissingError(PipelineError):
    """The processes on the other machines did not come in time."""

    exit_code = ExitCode.WORKERS_MISSING


class WorkersChangedError(PipelineError):
    """A worker has left, or the workers of a later epoch are there, so the pipeline has to move."""


class RecoveryBudgetError(PipelineError):
    """The stages failed more often than the settings allow."""

    exit_code = ExitCode.RECOVERY_BUDGET


class ShutdownError(TDPipeError):
    """The process is shutting down, so another one must serve the request."""


class NonFiniteLogitsError(TDPipeError):
    """The model computed NaN or infinite logits for one request, which ends; other requests go on."""

    def __init__(self) -> None:
        super().__init__(
            "the model's logits for this request are not finite, so no token can be sampled; "
            "check the checkpoint, or set model.dtype to float32"
        )


def one_line(error: Exception | str) -> str:
    """Shorten an error to one line, for terminals and responses.

    The text of a stage's failure includes a traceback; its first and last lines name the place and the cause.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__ if isinstance(error, Exception) else "no reason was given"
    return lines[0] if len(lines) == 1 else f"{lines[0].rstrip(':')}: {lines[-1]}"
