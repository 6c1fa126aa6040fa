"""A profile of the large model on this device, as `tdpipe profile` would write it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gpu_check.large_model import large_settings, unload_model
from benchmarks.gpu_check.part import Finding
from tdpipe.core.profile import write_profile_file
from tdpipe.measurement.measured_profile import measure_profile

if TYPE_CHECKING:
    from benchmarks.gpu_check.context import CheckContext

NAME = "profile.yaml"


def write_profile(context: CheckContext) -> Finding:
    """Measure a profile and write it into the output directory.

    Raises:
        PartSkippedError: there is no checkpoint.
        TDPipeError: the pipeline does not start, or fails, or the file cannot be written.
    """
    settings = large_settings(context)
    unload_model(context)  # it loads the stages itself
    made, fit = measure_profile(settings, context.scale.profile_seconds, lambda _: None)
    write_profile_file(context.output / NAME, made)
    errors = ", ".join(f"{kind} {error.mean:.1%}" for kind, error in fit.errors.items())
    return Finding(
        f"{NAME} of {len(made.stages)} stages; mean errors of the fit: {errors}",
        {"mean_errors": {str(kind): error.mean for kind, error in fit.errors.items()}},
    )
