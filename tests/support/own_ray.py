"""A program that runs a pipeline on a Ray of its own and reports which processes it leaves behind."""

from __future__ import annotations

import json
import os
import sys
import threading

from tdpipe.core.settings import PipelineSettings
from tdpipe.pipeline.ray.host import start_on_ray
from tests.support.fake_executor import FakeStages, continuation
from tests.support.served_demo import descendants
from tests.support.step_driver import Driver


def run(report: dict[str, object]) -> None:
    prompts = [[1, 2], [3]]
    pipeline = start_on_ray(PipelineSettings(), FakeStages(2), "cpu", lambda _: None)
    outputs = Driver(pipeline).generate(prompts, 5)
    report["right"] = outputs == [continuation(prompt, 5) for prompt in prompts]
    running = descendants(os.getpid())
    report["stages"] = sum("StageActor" in each.command for each in running)
    pipeline.close()
    pipeline.close()
    report["left"] = [each.command for each in running if each.lives()]


if __name__ == "__main__":
    outcome: dict[str, object] = {}
    # The engine starts its pipeline from a thread of its own.
    engine = threading.Thread(target=run, args=(outcome,))
    engine.start()
    engine.join()
    json.dump(outcome, sys.stdout)
