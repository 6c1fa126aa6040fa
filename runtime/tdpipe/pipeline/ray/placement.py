"""The place of the stages in a cluster: the kind of device, and resources for all stages at once or for none.

The controller decides before it reserves anything and may itself run on a machine without a GPU. So it looks at the
resources that the cluster reports and at how torch is built, not at the devices that it sees itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import ray
import torch
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tdpipe.core.errors import PipelineError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tdpipe.pipeline.ray.deadline import Deadline


DeviceName = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """The device that all stages compute on."""

    device: DeviceName
    reason: str
    """Readable reason for the choice."""


def choose_device(setting: Literal["auto"] | DeviceName, stages: int, gpus: int) -> DeviceChoice:
    """Choose the device of the stages in a cluster.

    `auto` is cuda if torch is built with CUDA and there is a GPU for each stage, else cpu.

    Args:
        setting: the value of `model.device`.
        stages: number of stages.
        gpus: number of GPUs in the cluster.
    """
    if setting != "auto":
        return DeviceChoice(setting, "as model.device says")
    if gpus < stages:
        return DeviceChoice("cpu", f"there are {gpus} GPUs for them" if gpus else "there is no GPU")
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return DeviceChoice("cpu", "this torch is built without CUDA")
    return DeviceChoice("cuda", f"{gpus} GPUs for {stages} stages")


def check_gpus(stages: int, gpus: int) -> None:
    """Refuse stages on GPUs where there are fewer than stages.

    Raises:
        SettingsError: there are fewer GPUs than stages.
    """
    if gpus < stages:
        raise SettingsError(
            "model.device",
            f"cuda needs a GPU for each of {stages} stages, and there are {gpus}",
            "set fewer pipeline.stages, or set it to cpu",
        )


class Placement:
    """A bundle of Ray resources for each stage.

    Args:
        resources: [stages] resources of each stage, by Ray's names.
        deadline: time until which the cluster must have them free.

    Raises:
        PipelineError: the cluster does not have the resources free in time.
    """

    def __init__(self, resources: Sequence[Mapping[str, float]], deadline: Deadline) -> None:
        self._resources = [dict(each) for each in resources]
        self._group: PlacementGroup | None = placement_group(self._resources, strategy="PACK")
        ready, seconds = [self._group.ready()], deadline.left()
        try:
            while not ray.wait(ready, timeout=deadline.slice())[0]:
                if not deadline.left():
                    raise self._no_place(seconds)
        except BaseException:
            self.remove()
            raise

    def _no_place(self, seconds: float) -> PipelineError:
        wanted = self._resources[0]
        on_cpus = ", set model.device to cpu" if "GPU" in wanted else ""
        return PipelineError(
            f"no place for {len(self._resources)} stages of {_amounts(wanted)} each after "
            f"{seconds:g} s; the cluster has {_amounts(ray.cluster_resources())}, of which "
            f"{_amounts(ray.available_resources())} are free; add nodes, set fewer "
            f"pipeline.stages{on_cpus} or raise pipeline.start_timeout"
        )

    def options(self, stage: int) -> dict[str, Any]:
        """Return the Ray options that start a stage's actor in its bundle."""
        resources = dict(self._resources[stage])
        return {
            "num_cpus": resources.pop("CPU", 0),
            "num_gpus": resources.pop("GPU", 0),
            "resources": resources,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=stage
            ),
        }

    def sharing(self) -> list[int]:
        """Return for each stage how many stages share its device's memory, including the stage itself."""
        nodes: dict[int, str] = placement_group_table(self._group)["bundles_to_node_id"]
        if "GPU" in self._resources[0]:  # no other stage uses it
            return [1] * len(nodes)
        stages_of = Counter(nodes.values())
        return [stages_of[nodes[stage]] for stage in range(len(nodes))]

    def remove(self) -> None:
        """Free the resources. Repeated calls have no effect."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
