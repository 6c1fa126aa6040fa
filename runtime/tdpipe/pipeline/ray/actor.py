"""The process of one stage.

Ray calls the actor three times: to load, to connect and to run. The last call does not return while the pipeline is
running. Ray makes all calls on one thread, which matters because OpenMP counts threads per calling thread. Errors are
returned and not raised, because not every exception can be pickled.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
import torch

from tdpipe.model.device import resolve_device
from tdpipe.pipeline.addresses import name_interface
from tdpipe.pipeline.ray.stage_folder import StageFolder, StageState
from tdpipe.pipeline.stage_builder import stage_device
from tdpipe.pipeline.stage_errors import to_stage_error
from tdpipe.pipeline.transport.control_socket import StageControl
from tdpipe.pipeline.transport.feedback_socket import FeedbackSocket
from tdpipe.pipeline.transport.secure_sockets import SecureSockets
from tdpipe.pipeline.transport.torch_activations import connect_neighbours
from tdpipe.stage.loop import StageLoop

if TYPE_CHECKING:
    from tdpipe.core.attempt import Attempt
    from tdpipe.core.errors import TDPipeError
    from tdpipe.pipeline.base import StageDevice
    from tdpipe.pipeline.stage_builder import LoadedStage, StageBuilder
    from tdpipe.pipeline.transport.rendezvous import Rendezvous

_log = logging.getLogger(__name__)
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
        attempt: start of the pipeline that the stage belongs to.
        threads: number of CPU threads to compute with. None, for CUDA devices, keeps torch's default.
    """

    def __init__(self, stage: int, attempt: Attempt, threads: int | None) -> None:
        self._stage = stage
        self._attempt = attempt
        self._folder = StageFolder.from_environment()
        if self._folder is not None:
            self._folder.redirect_output(stage)
            logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", force=True)
        self._report(loaded=False)
        if threads is not None:
            torch.set_num_threads(threads)
        self._loaded: LoadedStage | None = None
        self._sockets: SecureSockets | None = None
        self._loop: StageLoop | None = None

    def load(self, builder: StageBuilder, device: str, sharing: int) -> LoadResult | TDPipeError:
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
            return self._failure(error, "could not load")
        seconds = time.monotonic() - started
        _log.info("attempt %s: %s loaded in %.1f s", self._attempt, self._loaded.name, seconds)
        used = stage_device(self._loaded, torch.get_num_threads())
        return LoadResult(self._loaded.name, used, blocks, seconds)

    def connect(self, rendezvous: Rendezvous, host: str | None, blocks: int) -> TDPipeError | None:
        """Allocate the KV cache and connect to the controller and the other stages.

        Args:
            rendezvous: addresses and keys of the pipeline.
            host: address to listen on. None takes the address of the stage's node.
            blocks: number of KV blocks.
        """
        try:
            self._loop = self._connect(rendezvous, host, blocks)
        except Exception as error:
            return self._failure(error, "could not connect")
        self._report(loaded=True)
        _log.info("attempt %s: connected, with %d KV blocks", self._attempt, blocks)
        return None

    def run(self) -> TDPipeError | None:
        """Execute steps until the controller sends the stop message."""
        try:
            if self._loop is None:
                raise RuntimeError("run was called before connect")
            self._loop.run()
        except Exception as error:
            return self._failure(error, "failed")
        return None

    def _connect(self, rendezvous: Rendezvous, host: str | None, blocks: int) -> StageLoop:
        if self._loaded is None:
            raise RuntimeError("connect was called before load")
        executor = self._loaded.executor(blocks)
        sockets = self._sockets = SecureSockets(rendezvous.keys)
        address = host or str(ray.util.get_node_ip_address())
        upstream = downstream = None
        feedback = None
        if rendezvous.stages > 1:
            name_interface(address)
            store = rendezvous.store()
            if self._stage == 0:
                feedback = FeedbackSocket.listen(sockets, address)
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
        return StageLoop(
            executor, self._stage, self._attempt, control, upstream, downstream, feedback
        )

    def _report(self, *, loaded: bool) -> None:
        if self._folder is not None:
            state = StageState(self._stage, self._attempt.epoch, os.getpid(), loaded)
            self._folder.write(state)

    def _failure(self, error: Exception, problem: str) -> TDPipeError:
        failure = to_stage_error(error, self._stage, problem)
        _log.error("attempt %s: %s", self._attempt, failure)
        return failure
