"""Activations between neighbouring stages over `torch.distributed`: NCCL on GPUs, gloo on CPUs.

Each pair of neighbours has a group of its own, made and warmed in the same order on every stage:
communicators that come up lazily, in whatever order stages first speak, are a known way into a
deadlock.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from torch import Tensor

    from tdpipe.pipeline.rendezvous import Rendezvous

UNFINISHED_SENDS = 8


class TorchActivations:
    """`ActivationChannel` to one neighbour. One end sends, the other receives.

    Args:
        group: of this stage and the neighbour.
        peer: the neighbour's stage, which is its rank.
        hidden_size, dtype, device: of the activations.
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
        # gloo calls a send complete too early and hangs when waited for twice. So each is waited
        # for once, when so many later ones are under way that the neighbour has long asked for it;
        # until then its tensor is kept.
        if len(self._sending) == UNFINISHED_SENDS:
            oldest, _ = self._sending.popleft()
            oldest.wait()
        hidden = hidden.contiguous()
        work = _own(distributed.isend(hidden, self._peer, self._group))
        self._sending.append((work, hidden))

    def expect(self, tokens: int) -> None:
        # On a GPU, a receive that waits would hold multiprocessors that the step before computes on.
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
    """Meet the other stages.

    The process group is never torn down: stages of a broken one are killed, because neither backend
    can be trusted to come back in the same process.

    Returns:
        The channels from the stage before and to the stage after, None at the ends.
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
        # Every stage has to take part in making every group.
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
