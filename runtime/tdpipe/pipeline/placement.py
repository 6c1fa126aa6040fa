"""Where stages run: all of them placed at once, or none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import ray
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Placement:
    """A bundle of resources for each stage.

    Args:
        stages: how many.
        resources: of each, in Ray's names.
        timeout: seconds to wait for them.

    Raises:
        PipelineError: the cluster does not have them, or not in time.
    """

    def __init__(self, stages: int, resources: Mapping[str, float], timeout: float) -> None:
        self._resources = dict(resources)
        self._group: PlacementGroup | None = placement_group(
            [self._resources] * stages, strategy="PACK"
        )
        try:
            ray.get(self._group.ready(), timeout=timeout)
        except GetTimeoutError as error:
            self.remove()
            on_cpus = ", set model.device to cpu" if "GPU" in self._resources else ""
            raise PipelineError(
                f"no place for {stages} stages of {_amounts(self._resources)} each after "
                f"{timeout:g} s; the cluster has {_amounts(ray.cluster_resources())}, of which "
                f"{_amounts(ray.available_resources())} are free; add nodes, set fewer "
                f"pipeline.stages{on_cpus} or raise pipeline.start_timeout"
            ) from error

    def options(self, stage: int) -> dict[str, Any]:
        """Ray options that put a stage's actor into its bundle."""
        return {
            "num_cpus": self._resources.get("CPU", 0),
            "num_gpus": self._resources.get("GPU", 0),
            "scheduling_strategy": PlacementGroupSchedulingStrategy(
                self._group, placement_group_bundle_index=stage
            ),
        }

    def sharing(self) -> list[int]:
        """For each stage, how many stages share the memory of its device, itself included."""
        nodes: dict[int, str] = placement_group_table(self._group)["bundles_to_node_id"]
        if "GPU" in self._resources:  # which is one stage's alone
            return [1] * len(nodes)
        stages_of = Counter(nodes.values())
        return [stages_of[nodes[stage]] for stage in range(len(nodes))]

    def remove(self) -> None:
        """Give the resources back; idempotent."""
        if self._group is not None:
            remove_placement_group(self._group)
            self._group = None


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
