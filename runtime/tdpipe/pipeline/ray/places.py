"""The places of the stages of one start: which resources of which cluster each of them takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tdpipe.core.attempt import Attempt
from tdpipe.pipeline.ray.cluster import RayCluster
from tdpipe.pipeline.ray.placement import DeviceName, check_gpus, choose_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from typing import Literal

    from tdpipe.core.errors import TDPipeError
    from tdpipe.pipeline.ray.deadline import Deadline

_LOCAL_PLACEMENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Places:
    """The places of all stages."""

    attempt: Attempt
    cluster: RayCluster
    device: DeviceName
    resources: tuple[Mapping[str, float], ...]
    """[stages] resources that each stage takes, by Ray's names."""
    threads: int | None
    """Number of CPU threads of each stage; None on CUDA devices."""
    reservation: Deadline
    """Time until which the resources must be free."""


class PlaceFinder(Protocol):
    """Finds the places of the stages for each start."""

    def find(self, deadline: Deadline, progress: Callable[[str], None], undo: ExitStack) -> Places:
        """Find the places of a start.

        Args:
            deadline: time until which they must be found.
            progress: function that receives one line of text for each step.
            undo: stack of callbacks that end what is started for this start alone.

        Raises:
            SettingsError: the settings do not fit the cluster.
            PipelineError: there are no places in time.
        """

    def replaced(self, attempt: Attempt) -> TDPipeError | None:
        """Return an error if the places of a running pipeline are no longer the right ones, or None."""

    def failure(self) -> TDPipeError | None:
        """Return why no further start can succeed, or None."""

    def close(self) -> None:
        """Leave the cluster. Repeated calls have no effect."""


class FreePlaces:
    """Places anywhere in the Ray at RAY_ADDRESS, or in one that tdpipe starts on this machine for each start.

    Args:
        stages: number of stages.
        threads: number of CPU threads of each stage.
        device: device of every stage. `choose_device` decides what auto is.
    """

    def __init__(self, stages: int, threads: int, device: Literal["auto", "cpu", "cuda"]) -> None:
        self._stages = stages
        self._threads = threads
        self._device = device
        self._attempt = Attempt(1, 0)

    def find(self, deadline: Deadline, progress: Callable[[str], None], undo: ExitStack) -> Places:
        progress("joining Ray")
        cluster = RayCluster.join(self._stages * self._threads + 1, deadline.left())
        undo.callback(cluster.leave)
        choice = choose_device(self._device, self._stages, cluster.gpus)
        cuda = choice.device == "cuda"
        reservation = deadline
        if cluster.local:
            # A Ray on this machine only will get no further resources.
            if cuda:
                check_gpus(self._stages, cluster.gpus)
            reservation = deadline.after(min(_LOCAL_PLACEMENT_SECONDS, deadline.left()))
        progress(f"stages compute on {choice.device} ({choice.reason})")
        self._attempt = self._attempt.next(1)
        resources = {"GPU": 1.0} if cuda else {"CPU": float(self._threads)}
        return Places(
            self._attempt,
            cluster,
            choice.device,
            (resources,) * self._stages,
            None if cuda else self._threads,
            reservation,
        )

    def replaced(self, _attempt: Attempt) -> None:
        return None

    def failure(self) -> None:
        return None

    def close(self) -> None:
        """Do nothing, because each pipeline leaves the cluster that it joined."""
