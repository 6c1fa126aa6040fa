from __future__ import annotations

from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.scheduling.sequence import Sequence
from tdpipe.scheduling.waiting_queue import WaitingQueue


def sequence(number: int) -> Sequence:
    return Sequence(number, Request(str(number), (1,), 1, LengthDistribution((1,))))


def test_preempted_sequences_come_before_new_ones_by_arrival() -> None:
    queue = WaitingQueue()
    a, b, c, d = (sequence(number) for number in range(4))
    for each in (c, d):
        queue.append(each)
    queue.put_back(b)
    queue.put_back(a)
    assert [each.number for each in queue] == [0, 1, 2, 3]


def test_a_sequence_that_left_and_came_back_is_there_once() -> None:
    queue = WaitingQueue()
    a, b = sequence(0), sequence(1)
    queue.append(a)
    queue.append(b)
    queue.remove(b)
    queue.put_back(b)
    assert [each.number for each in queue] == [1, 0]
    assert len(queue) == 2


def test_sums_are_over_those_that_wait() -> None:
    queue = WaitingQueue()
    prompts = {0: 3, 1: 5, 2: 9}
    waiting = {
        number: Sequence(number, Request(str(number), (1,) * tokens, 1, LengthDistribution((1,))))
        for number, tokens in prompts.items()
    }
    for each in waiting.values():
        queue.append(each)
    queue.remove(waiting[1])
    load = queue.load
    assert (load.sequences, load.tokens, load.tokens_squared) == (2, 12.0, 90.0)
