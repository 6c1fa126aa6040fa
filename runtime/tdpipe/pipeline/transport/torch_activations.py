"""The channels that carry activations between neighbouring stages over `torch.distributed`.

The backend is NCCL on GPUs and gloo on CPUs. Each pair of neighbours has its own process group, created and warmed up
in the same order on every stage, because groups whose communicators are created on first use can deadlock.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.pipeline.transport.rendezvous import Rendezvous

_MAX_UNFINISHED_SENDS = 8


class TorchActivations:
    """An `ActivationChannel` to one neighbour. One end only sends and the other only receives.

    Args:
        group: process group of this stage and the neighbour.
        peer: stage number of the neighbour, which is its rank.
        hidden_size: number of elements of one token's activations.
        dtype: data type of the activations.
        device: device of the activations.
    """

    def __init__(
        self,
        group: distributed.ProcessGroup,
        peer: int,
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._group = group
        self._peer = peer
        self._hidden_size = hidden_size
        self._dtype = dtype
        self._device = device
        self._sending: deque[tuple[distributed.Work, Tensor]] = deque()
        self._expected: deque[tuple[distributed.Work, Tensor]] = deque()

    def send(self, hidden: Tensor) -> None:
        # gloo reports a send as complete too early and hangs if a send is waited for twice. So each
        # send is waited for once, when so many later ones have started that the neighbour must have
        # received it, and its tensor is kept until then.
        if len(self._sending) == _MAX_UNFINISHED_SENDS:
            oldest, _ = self._sending.popleft()
            oldest.wait()
        hidden = hidden.contiguous()
        work = _own(distributed.isend(hidden, self._peer, self._group))
        self._sending.append((work, hidden))

    def expect(self, tokens: int) -> None:
        # On a GPU, a waiting receive would occupy multiprocessors that the step before needs.
        if self._device.type == "cpu":
            self._expected.append(self._begin(tokens))

    def receive(self, tokens: int) -> Tensor:
        work, hidden = self._expected.popleft() if self._expected else self._begin(tokens)
        if len(hidden) != tokens:
            raise RuntimeError(f"activations of {len(hidden)} tokens were expected, not {tokens}")
        work.wait()
        return hidden

    def _begin(self, tokens: int) -> tuple[distributed.Work, Tensor]:
        hidden = torch.empty(tokens, self._hidden_size, dtype=self._dtype, device=self._device)
        return _own(distributed.irecv(hidden, self._peer, self._group)), hidden


def _own(work: distributed.Work | None) -> distributed.Work:
    if work is None:
        raise RuntimeError("this stage is not a member of its own activation group")
    return work


def connect_neighbours(
    rendezvous: Rendezvous,
    stage: int,
    hidden_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[TorchActivations | None, TorchActivations | None]:
    """Join the process group of all stages and open the channels to the neighbours.

    The process group is never destroyed. If it breaks, its stages are killed, because neither backend recovers reliably
    within a process.

    Args:
        rendezvous: addresses and timeouts of the pipeline.
        stage: number of this stage, which is its rank.
        hidden_size: number of elements of one token's activations.
        dtype: data type of the activations.
        device: device of the activations.

    Returns:
        The channel from the stage before and the channel to the stage after, or None where there is no such stage.
    """
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=rendezvous.store(),
        rank=stage,
        world_size=rendezvous.stages,
        timeout=timedelta(seconds=rendezvous.join_timeout),
    )
    channels: dict[int, TorchActivations] = {}
    for first in range(rendezvous.stages - 1):
        pair = [first, first + 1]
        # `new_group` is a collective call that every stage must make for every group.
        group = distributed.new_group(pair, timeout=timedelta(seconds=rendezvous.step_timeout))
        if stage in pair:
            peer = pair[1] if stage == first else first
            channels[peer] = TorchActivations(group, peer, hidden_size, dtype, device)
    for first in range(rendezvous.stages - 1):
        if stage == first:
            warm_up = torch.zeros(1, hidden_size, dtype=dtype, device=device)
            channels[first + 1].send(warm_up)
        elif stage == first + 1:
            channels[first].receive(1)
    return channels.get(stage - 1), channels.get(stage + 1)
