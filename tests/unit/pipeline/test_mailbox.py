from __future__ import annotations

from typing import TYPE_CHECKING

from tdpipe.pipeline.mailbox import Mailbox, MailboxControl
from tests.support.step_driver import row_step

if TYPE_CHECKING:
    from tdpipe.core.step import Step


def test_receive_ends_even_if_receive_ready_took_the_closing_message() -> None:
    steps: Mailbox[Step] = Mailbox()
    control = MailboxControl(steps, lambda _: None)
    assert control.receive_ready() is None
    steps.send(row_step(0, [(0, 0, 1, True)]))
    taken = control.receive_ready()
    assert taken is not None
    assert taken.id == 0
    steps.close()
    assert control.receive_ready() is None
    assert control.receive() is None
