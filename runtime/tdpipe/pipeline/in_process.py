"""Stages that run as threads of the controller's own process.

Tests use this host, and it makes it possible to examine the engine without Ray. The loop and the executor are the same
as in an actor, but because of Python's global lock the stages compute in parallel only inside torch.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING

import torch

from tdpipe.core.attempt import FIRST_ATTEMPT
from tdpipe.core.errors import TDPipeError
from tdpipe.pipeline.mailbox import (
    Mailbox,
    MailboxActivations,
    MailboxClosedError,
    MailboxControl,
)
from tdpipe.pipeline.stage_builder import stage_device
from tdpipe.pipeline.stage_errors import to_stage_error
from tdpipe.pipeline.stage_group import StagePipeline
from tdpipe.stage.loop import StageLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from tdpipe.core.settings import PipelineSettings
    from tdpipe.core.step import StageReport, Step, TokenFeedback
    from tdpipe.pipeline.stage_builder import StageBuilder
    from tdpipe.stage.loop import Executor

_JOIN_SECONDS = 2.0


class ThreadStages:
    """A `StageGroup` of threads."""

    def __init__(self, executors: Sequence[Executor], threads_per_stage: int) -> None:
        last = len(executors) - 1
        self._inbox: queue.SimpleQueue[StageReport | TDPipeError | None] = queue.SimpleQueue()
        self._steps: list[Mailbox[Step]] = [Mailbox() for _ in executors]
        self._activations: list[Mailbox[Tensor]] = [Mailbox() for _ in range(last)]
        self._feedback: Mailbox[TokenFeedback] = Mailbox()
        self._failure: TDPipeError | None = None
        self._threads = []
        for stage, executor in enumerate(executors):
            ends = last > 0 and stage in (0, last)
            loop = StageLoop(
                executor,
                stage,
                FIRST_ATTEMPT,
                MailboxControl(self._steps[stage], self._inbox.put),
                MailboxActivations(self._activations[stage - 1]) if stage > 0 else None,
                MailboxActivations(self._activations[stage]) if stage < last else None,
                self._feedback if ends else None,
            )
            self._threads.append(
                threading.Thread(
                    target=self._run,
                    args=(stage, loop, threads_per_stage),
                    name=f"stage-{stage}",
                    daemon=True,
                )
            )
        for thread in self._threads:
            thread.start()

    def _run(self, stage: int, loop: StageLoop, threads: int) -> None:
        torch.set_num_threads(threads)
        try:
            loop.run()
        except MailboxClosedError:
            pass
        except Exception as error:
            self._inbox.put(to_stage_error(error, stage, "failed"))

    def send(self, step: Step) -> None:
        for mailbox in self._steps:
            mailbox.send(step)

    def receive(self, timeout: float | None) -> Sequence[StageReport]:
        reports: list[StageReport] = []
        try:
            message = None if self._failure else self._inbox.get(timeout=timeout)
            while message is not None:
                if isinstance(message, TDPipeError):
                    self._failure = message
                    break
                reports.append(message)
                message = self._inbox.get_nowait()
        except queue.Empty:
            pass
        if self._failure and not reports:
            raise self._failure
        return reports

    def interrupt(self) -> None:
        self._inbox.put(None)

    def close(self) -> None:
        for steps in self._steps:
            steps.close()
        for activations in self._activations:
            activations.close()
        self._feedback.close()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class InProcessHost:
    """A `PipelineHost` of threads. A failed pipeline is final, because a thread cannot be killed.

    Args:
        settings: threads per stage and step timeout.
        builder: builder of the stages.
        device: device of every stage.
    """

    def __init__(
        self, settings: PipelineSettings, builder: StageBuilder, device: torch.device
    ) -> None:
        self._settings = settings
        self._builder = builder
        self._device = device
        self.restartable = False

    def start(self, progress: Callable[[str], None]) -> StagePipeline:
        progress(f"stages compute on {self._device.type}")
        return start_in_process(self._settings, self._builder, self._device, progress)

    def cancel(self) -> None:
        """Do nothing, because the threads of a start end with the process."""

    def failure(self) -> None:
        return None

    def close(self) -> None:
        """Do nothing, because a pipeline holds all that was started."""


def start_in_process(
    settings: PipelineSettings,
    builder: StageBuilder,
    device: torch.device,
    progress: Callable[[str], None],
) -> StagePipeline:
    """Load all stages into this process and start their threads.

    Args:
        settings: threads per stage and step timeout.
        builder: builder of the stages.
        device: device of every stage.
        progress: function that receives one line of text for each loaded stage.

    Raises:
        ModelError: the checkpoint cannot be loaded.
        SettingsError: a stage has no room for the KV cache.
    """
    loaded = []
    for stage in range(builder.stages):
        started = time.monotonic()
        loaded.append(builder.load(stage, device, sharing=builder.stages))
        seconds = time.monotonic() - started
        progress(f"stage {stage}: {loaded[-1].name} loaded in {seconds:.1f} s")
    blocks = min(stage.fitting_blocks() for stage in loaded)
    capacity = builder.capacity(blocks)
    executors = [stage.executor(blocks) for stage in loaded]
    group = ThreadStages(executors, settings.threads)
    devices = tuple(stage_device(stage, settings.threads) for stage in loaded)
    return StagePipeline(group, FIRST_ATTEMPT, devices, capacity, settings.step_timeout)
