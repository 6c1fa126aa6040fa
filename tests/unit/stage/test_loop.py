from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from tdpipe.core.attempt import FIRST_ATTEMPT
from tdpipe.core.errors import PipelineError
from tdpipe.core.step import StepOutput, TokenFeedback
from tdpipe.stage.loop import MAX_PENDING_STEPS, StageLoop
from tests.support.step_driver import row_step, start_of

if TYPE_CHECKING:
    from tdpipe.core.step import StageReport, Step

Log = list[tuple[object, ...]]


class Script:
    """An executor that records what the loop does."""

    def __init__(self, steps: list[Step]) -> None:
        self.log: Log = []
        self.reports: list[StageReport] = []
        self._steps = list(steps)
        self._missing_tokens = 0

    def lacking(self, tokens: int) -> Script:
        self._missing_tokens = tokens
        return self

    def apply(self, step: Step) -> None:
        self.log.append(("apply", step.id))

    def lacks_tokens(self, _step: Step) -> bool:
        return self._missing_tokens > 0

    def store_tokens(self, feedback: TokenFeedback) -> None:
        self._missing_tokens -= 1
        self.log.append(("store", feedback.step))

    def forward(self, step: Step, hidden: torch.Tensor | None) -> torch.Tensor:
        self.log.append(("forward", step.id, None if hidden is None else hidden.shape[0]))
        return torch.zeros(step.tokens, 2)

    def sample(self, step: Step, hidden: torch.Tensor) -> tuple[StepOutput, TokenFeedback]:
        self.log.append(("sample", step.id, hidden.shape[0]))
        return StepOutput(step.id, np.asarray([9], np.int32)), feedback_of(step.id)

    def synchronise(self) -> float:
        self.log.append(("synchronise",))
        return 0.25

    def receive_step(self) -> Step | None:
        return self._steps.pop(0) if self._steps else None


class Control:
    def __init__(self, script: Script, ready: int) -> None:
        self._script = script
        self._ready = ready

    def receive(self) -> Step | None:
        self._script.log.append(("receive step",))
        return self._script.receive_step()

    def receive_ready(self) -> Step | None:
        if self._ready == 0:
            return None
        self._ready -= 1
        return self._script.receive_step()

    def report(self, report: StageReport) -> None:
        self._script.log.append(("report", report.step, report.stage))
        self._script.reports.append(report)


class Activations:
    def __init__(self, script: Script) -> None:
        self._script = script

    def send(self, hidden: torch.Tensor) -> None:
        self._script.log.append(("send", hidden.shape[0]))

    def expect(self, tokens: int) -> None:
        self._script.log.append(("expect", tokens))

    def receive(self, tokens: int) -> torch.Tensor:
        self._script.log.append(("receive", tokens))
        return torch.zeros(tokens, 2)


class Feedback:
    def __init__(self, script: Script, messages: list[TokenFeedback], ready: int) -> None:
        self._script = script
        self._messages = messages
        self._ready = ready

    def send(self, feedback: TokenFeedback) -> None:
        self._script.log.append(("feedback", feedback.step))

    def receive(self) -> TokenFeedback:
        self._script.log.append(("wait",))
        return self._messages.pop(0)

    def receive_ready(self) -> TokenFeedback | None:
        if self._ready == 0:
            return None
        self._ready -= 1
        return self._messages.pop(0)


def feedback_of(step: int) -> TokenFeedback:
    return TokenFeedback(step, *[np.asarray([0], np.int32)] * 4)


def prefill(number: int, tokens: int = 3) -> Step:
    return row_step(number, [(0, 0, tokens, True)], (start_of(0, 1, [1] * tokens),))


def run(
    script: Script,
    stage: int,
    *,
    up: bool,
    down: bool,
    feedback: Feedback | None = None,
    ready: int = 0,
) -> Log:
    """Return what the loop does except receiving steps and synchronising; `ready` steps have arrived early."""
    log = full_log(script, stage, up=up, down=down, feedback=feedback, ready=ready)
    return [entry for entry in log if entry not in (("receive step",), ("synchronise",))]


def full_log(
    script: Script,
    stage: int,
    *,
    up: bool,
    down: bool,
    feedback: Feedback | None = None,
    ready: int = 0,
) -> Log:
    loop = StageLoop(
        script,
        stage,
        FIRST_ATTEMPT,
        Control(script, ready),
        Activations(script) if up else None,
        Activations(script) if down else None,
        feedback,
    )
    loop.run()
    return script.log


def test_the_first_stage_computes_from_token_ids_and_sends_before_it_reports() -> None:
    script = Script([prefill(0)])
    log = run(script, 0, up=False, down=True, feedback=Feedback(script, [], 0))
    assert log == [("apply", 0), ("forward", 0, None), ("send", 3), ("report", 0, 0)]


def test_a_middle_stage_passes_activations_on() -> None:
    log = run(Script([prefill(0, 2), prefill(1, 5)]), 1, up=True, down=True)
    assert log[:5] == [
        ("apply", 0),
        ("receive", 2),
        ("forward", 0, 2),
        ("send", 2),
        ("report", 0, 1),
    ]
    assert log[5:7] == [("apply", 1), ("receive", 5)]


def test_the_last_stage_sends_its_tokens_to_stage_0_before_it_reports() -> None:
    script = Script([prefill(0)])
    log = run(script, 2, up=True, down=False, feedback=Feedback(script, [], 0))
    assert log[-3:] == [("sample", 0, 3), ("feedback", 0), ("report", 0, 2)]
    (report,) = script.reports
    assert report.output is not None
    assert report.output.tokens.tolist() == [9]


def test_a_single_stage_stores_its_own_tokens() -> None:
    log = run(Script([prefill(0)]), 0, up=False, down=False)
    assert log == [
        ("apply", 0),
        ("forward", 0, None),
        ("sample", 0, 3),
        ("store", 0),
        ("report", 0, 0),
    ]


def test_feedback_that_has_arrived_is_stored_without_waiting() -> None:
    script = Script([prefill(0)])
    feedback = Feedback(script, [feedback_of(10), feedback_of(11)], ready=2)
    log = run(script, 0, up=False, down=True, feedback=feedback)
    assert log[:4] == [("apply", 0), ("store", 10), ("store", 11), ("forward", 0, None)]


def test_stage_0_waits_only_for_the_tokens_that_the_step_needs() -> None:
    script = Script([prefill(0)]).lacking(tokens=3)
    messages = [feedback_of(number) for number in range(5)]
    log = run(script, 0, up=False, down=True, feedback=Feedback(script, messages, ready=1))
    assert log[1:7] == [
        ("store", 0),
        ("wait",),
        ("store", 1),
        ("wait",),
        ("store", 2),
        ("forward", 0, None),
    ]


def test_a_gap_in_the_steps_stops_the_loop() -> None:
    with pytest.raises(PipelineError, match="received step 2, but step 1 is next"):
        run(Script([prefill(0), prefill(2)]), 1, up=True, down=True)


def test_an_error_of_the_executor_ends_the_loop_without_a_report() -> None:
    class Broken(Script):
        def forward(self, _step: Step, _hidden: torch.Tensor | None) -> torch.Tensor:
            raise ArithmeticError

    script = Broken([prefill(0)])
    with pytest.raises(ArithmeticError):
        run(script, 1, up=True, down=True)
    assert script.reports == []


def test_a_step_is_passed_on_only_when_it_is_computed() -> None:
    log = full_log(Script([prefill(0)]), 1, up=True, down=True)
    assert log[:7] == [
        ("receive step",),
        ("apply", 0),
        ("receive", 3),
        ("forward", 0, 3),
        ("synchronise",),
        ("send", 3),
        ("report", 0, 1),
    ]


def test_a_report_has_the_seconds_that_the_executor_gives() -> None:
    for up, down in ((True, True), (True, False)):
        script = Script([prefill(0)])
        run(script, 1, up=up, down=down)
        assert [report.busy for report in script.reports] == [0.25]


def test_the_next_steps_are_received_while_one_computes() -> None:
    script = Script([prefill(number, tokens) for number, tokens in enumerate((2, 5, 7, 9))])
    log = full_log(script, 1, up=True, down=True, ready=2)
    computing = log.index(("forward", 0, 2))
    assert log[computing + 1 : computing + 4] == [("expect", 5), ("expect", 7), ("synchronise",)]
    assert [entry[1] for entry in log if entry[0] == "forward"] == [0, 1, 2, 3]
    assert [entry for entry in log if entry[0] in ("receive step", "receive")] == [
        ("receive step",),
        ("receive", 2),
        ("receive", 5),
        ("receive", 7),
        ("receive step",),
        ("receive", 9),
        ("receive step",),
    ]


def test_no_more_steps_are_received_early_than_may_be_pending() -> None:
    script = Script([prefill(number) for number in range(9)])
    log = run(script, 1, up=True, down=True, ready=9)
    assert log[: log.index(("send", 3))].count(("expect", 3)) == MAX_PENDING_STEPS


def test_an_early_step_out_of_order_stops_the_loop() -> None:
    with pytest.raises(PipelineError, match="received step 2, but step 1 is next"):
        run(Script([prefill(0), prefill(2)]), 1, up=True, down=True, ready=1)
