"""Errors that a person can act on.

Each says in one line what is wrong and how to fix it. The CLI prints that line and exits with 1 or 2; the server turns
it into an HTTP error in OpenAI's format.
"""

from __future__ import annotations


class TDPipeError(Exception):
    """Base of every error that tdpipe raises on purpose."""


class SettingsError(TDPipeError):
    """A setting cannot be used.

    Args:
        field: the setting's dotted name, such as `pipeline.stages`.
        problem: what is wrong with its value.
        remedy: what to do about it.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}; {remedy}")
        self.field = field
        self._parts = (field, problem, remedy)

    def __reduce__(self) -> tuple[type[SettingsError], tuple[str, str, str]]:
        """Pickle the arguments, because processes send errors to each other and the text alone cannot restore one."""
        return type(self), self._parts


class ModelError(TDPipeError):
    """A checkpoint cannot be loaded or is not supported; the text includes the remedy."""


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


def one_line(error: Exception | str) -> str:
    """Shorten an error to one line, for terminals and responses.

    The text of a stage's failure includes a traceback; its first and last lines name the place and the cause.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__ if isinstance(error, Exception) else "no reason was given"
    return lines[0] if len(lines) == 1 else f"{lines[0].rstrip(':')}: {lines[-1]}"


class NonFiniteLogitsError(TDPipeError):
    """The model computed NaN or infinite logits for one request, which ends; other requests go on."""

    def __init__(self) -> None:
        super().__init__(
            "the model's logits for this request are not finite, so no token can be sampled; "
            "check the checkpoint, or set model.dtype to float32"
        )
