"""The process of one stage.

Ray calls the actor three times: to load, to connect and to run. The last call does not return while the pipeline is
running. Ray makes all calls on one thread, which matters because OpenMP counts threads per calling thread. Errors are
returned and not raised, because not every exception can be pickled.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
import torch

from tdpipe.core.errors import TDPipeError
from tdpipe.core.step import StageFailure
from tdpipe.model.device import resolve_device
from tdpipe.pipeline.stage_builder import stage_device
from tdpipe.pipeline.transport.control_socket import StageControl
from tdpipe.pipeline.transport.feedback_socket import FeedbackSocket
from tdpipe.pipeline.transport.secure_sockets import SecureSockets
from tdpipe.pipeline.transport.torch_activations import connect_neighbours
from tdpipe.stage.loop import StageLoop

if TYPE_CHECKING:
    from tdpipe.pipeline.base import StageDevice
    from tdpipe.pipeline.stage_builder import LoadedStage, StageBuilder
    from tdpipe.pipeline.transport.rendezvous import Rendezvous

_FEEDBACK_KEY = "feedback"


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a stage reports when its weights are loaded."""

    name: str
    """Readable name of what the stage holds: `layers 0-15 (float32, cpu attention)`."""
    device: StageDevice
    fitting_blocks: int
    """Number of KV blocks that the stage has room for."""
    seconds: float
    """Duration of loading."""


class StageActor:
    """The Ray actor of one stage.

    Args:
        stage: number of the stage.
        threads: number of CPU threads to compute with. None, for CUDA devices, keeps torch's default.
    """

    def __init__(self, stage: int, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._stage = stage
        self._loaded: LoadedStage | None = None
        self._sockets: SecureSockets | None = None
        self._loop: StageLoop | None = None

    def load(self, builder: StageBuilder, device: str, sharing: int) -> LoadResult | StageFailure:
        """Load the stage's weights.

        Args:
            builder: builder of the pipeline's stages.
            device: name of the device to load to.
            sharing: number of stages that share the device's memory, including this one.
        """
        started = time.monotonic()
        try:
            self._loaded = builder.load(self._stage, resolve_device(device), sharing)
            blocks = self._loaded.fitting_blocks()
        except Exception as error:
            return self._failure(error)
        seconds = time.monotonic() - started
        return LoadResult(self._loaded.name, stage_device(self._loaded), blocks, seconds)

    def connect(self, rendezvous: Rendezvous, host: str | None, blocks: int) -> StageFailure | None:
        """Allocate the KV cache and connect to the controller and the other stages.

        Args:
            rendezvous: addresses and keys of the pipeline.
            host: address to listen on. None takes the address of the stage's node.
            blocks: number of KV blocks.
        """
        try:
            self._loop = self._connect(rendezvous, host, blocks)
        except Exception as error:
            return self._failure(error)
        return None

    def run(self) -> StageFailure | None:
        """Execute steps until the controller sends the stop message."""
        try:
            if self._loop is None:
                raise RuntimeError("run was called before connect")
            self._loop.run()
        except Exception as error:
            return self._failure(error)
        return None

    def _connect(self, rendezvous: Rendezvous, host: str | None, blocks: int) -> StageLoop:
        if self._loaded is None:
            raise RuntimeError("connect was called before load")
        executor = self._loaded.executor(blocks)
        sockets = self._sockets = SecureSockets(rendezvous.keys)
        upstream = downstream = None
        feedback = None
        if rendezvous.stages > 1:
            store = rendezvous.store()
            if self._stage == 0:
                feedback = FeedbackSocket.listen(
                    sockets, host or str(ray.util.get_node_ip_address())
                )
                store.set(_FEEDBACK_KEY, feedback.address)
            elif self._stage == rendezvous.stages - 1:
                feedback = FeedbackSocket.connect(sockets, store.get(_FEEDBACK_KEY).decode())
            upstream, downstream = connect_neighbours(
                rendezvous,
                self._stage,
                self._loaded.hidden_size,
                self._loaded.dtype,
                self._loaded.device,
            )
        control = StageControl(sockets, rendezvous.control, self._stage)
        return StageLoop(executor, self._stage, control, upstream, downstream, feedback)

    def _failure(self, error: Exception) -> StageFailure:
        expected = isinstance(error, TDPipeError)
        return StageFailure(self._stage, str(error) if expected else traceback.format_exc())
