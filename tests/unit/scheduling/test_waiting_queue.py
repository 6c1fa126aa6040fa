from __future__ import annotations

from tdpipe.core.lengths import LengthDistribution
from tdpipe.core.request import Request
from tdpipe.scheduling.sequence import Sequence
from tdpipe.scheduling.waiting_queue import Load, WaitingQueue
from tests.support.prompts import prompt


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


def test_the_load_weighs_each_sequence_by_its_tokens_and_its_output() -> None:
    queue = WaitingQueue()
    short, long = prompt(3, output=4), prompt(5, number=1, output=10)
    queue.append(short)
    queue.put_back(long)
    assert queue.load == Load(2, 8.0, 14.0, 3.0 * 4.0 + 5.0 * 10.0, 16.0 + 100.0, 9.0 + 25.0)
    long.generated += [7, 7]
    queue.update(long)
    assert queue.load == Load(2, 10.0, 12.0, 3.0 * 4.0 + 7.0 * 8.0, 16.0 + 64.0, 9.0 + 49.0)
    queue.remove(long)
    queue.remove(short)
    queue.remove(short)  # it does not wait any more
    assert queue.load == Load()


def test_the_longest_expected_output_comes_first_and_keeps_its_place_up_to_date() -> None:
    queue = WaitingQueue()
    outputs = (10, 200, 90)
    waiting = [prompt(3, number=number, output=output) for number, output in enumerate(outputs)]
    for each in waiting:
        queue.append(each)
    assert [each.number for each in queue.longest_first()] == [1, 2, 0]
    waiting[1].generated += [7] * 150
    queue.update(waiting[1])
    assert [each.number for each in queue.longest_first()] == [2, 1, 0]
    queue.remove(waiting[2])
    assert [each.number for each in queue.longest_first()] == [1, 0]
