"""A controller and workers on machines of their own, as far as the network can tell.

The machines are network namespaces, so that what connects to a wrong address, or to nobody, shows. The tests share one
cluster and come in the order in which they change it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from benchmarks.cluster.network import Machine, connected_machines, why_impossible
from benchmarks.cluster.processes import Cluster, kill, wait_until
from benchmarks.cluster.streams import Stream, stream_all

from tests.support.served_demo import answer, question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cluster.processes import WorkerProcess

pytestmark = [
    pytest.mark.skipif(why_impossible() is not None, reason=str(why_impossible())),
    pytest.mark.timeout(600),
]

CONTROLLER_DELAY_SECONDS = 30.0
PROMPTS = [f"{question(first, first + 55)}\n" for first in (1, 20, 41)]
TOKENS = 900
NOTICE_SECONDS = 10.0


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Machine]]:
    """The controller's machine, two of workers and a spare one."""
    with connected_machines(4) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(machines: list[Machine], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Workers of epoch 2 and one of epoch 1, and a controller that came later."""
    settings = {
        "pipeline": {"stages": 2, "threads_per_stage": 1, "start_timeout": 180},
        "recovery": {"max_restarts": 20, "max_restarts_per_hour": 100},
        "server": {"drain_timeout": 120},
    }
    made = Cluster(tmp_path_factory.mktemp("cluster"), machines, settings)
    try:
        made.start_worker(machines[3], 0, epoch=1)
        made.start_workers(machines[1:3], epoch=2)
        time.sleep(CONTROLLER_DELAY_SECONDS)
        assert all(worker.process.poll() is None for worker in made.workers)
        made.start_controller()
        made.await_ready()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def unharmed(cluster: Cluster) -> list[Stream]:
    """What the streams bring when nothing happens."""
    return cluster.machines[0].call(lambda: stream_all(cluster.url, PROMPTS, TOKENS))


def probe(worker: WorkerProcess, name: str) -> httpx.Response:
    url = f"http://127.0.0.1:{worker.probe_port}/health/{name}"
    return worker.machine.call(lambda: httpx.get(url))


def under_load(cluster: Cluster, harm: Callable[[], object]) -> list[Stream]:
    """Run the streams, do harm while they run, and return what they brought."""
    found: list[Stream] = []

    def run() -> None:
        found.extend(cluster.machines[0].call(lambda: stream_all(cluster.url, PROMPTS, TOKENS)))

    clients = threading.Thread(target=run)
    clients.start()
    time.sleep(1.5)
    harm()
    clients.join(300)
    return found


def check(streams: list[Stream], unharmed: list[Stream]) -> None:
    assert [stream.error for stream in streams] == [None] * len(PROMPTS)
    assert [stream.tokens for stream in streams] == [TOKENS] * len(PROMPTS)
    assert [stream.text for stream in streams] == [stream.text for stream in unharmed]


def test_workers_that_came_before_the_controller_serve(cluster: Cluster) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": question(4, 11)}]}
    url = f"{cluster.url}/v1/chat/completions"
    response = cluster.machines[0].call(lambda: httpx.post(url, json=body | {"temperature": 0}))
    assert response.json()["choices"][0]["message"]["content"] == answer(4, 11)


def test_a_worker_of_an_older_epoch_gets_no_stage(cluster: Cluster) -> None:
    old, *current = cluster.workers
    assert cluster.stages(old) == []
    assert [len(cluster.stages(worker)) for worker in current] == [1, 1]
    assert probe(old, "live").status_code == 200
    assert probe(old, "ready").json()["reason"] == "stage 0 is not started"
    for worker in current:
        assert probe(worker, "live").status_code == 200
        assert probe(worker, "ready").status_code == 200


def test_each_workers_output_has_its_stages_lines_with_their_numbers(cluster: Cluster) -> None:
    for worker in cluster.workers[1:]:
        lines = worker.log.read_text().splitlines()
        assert any(
            line.startswith(f"stage {worker.place}: INFO attempt 2.1: layers ") for line in lines
        )


VISITS = {
    "init": "import ray; ray.init(address=sys.argv[1], _node_ip_address=sys.argv[2], log_to_driver=False)",
    "read": "from ray._raylet import GcsClient; assert GcsClient(sys.argv[1]).internal_kv_keys(b'', b'')",
}
TOKENS_GIVEN = {"none": {}, "wrong": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32}}


def visit(cluster: Cluster, way: str, token: dict[str, str]) -> str:
    """Try to use the controller's Ray from outside, and return what the program printed; "came in" if it could."""
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    head, machine = cluster.machines[0], cluster.machines[3]
    if way == "join":
        address = f"--node-ip-address={machine.address}"
        command = [*ray, "start", f"--address={cluster.address}", address]
    elif way == "status":
        command = [*ray, "status", f"--address={cluster.address}"]
    else:
        program = f"import sys; {VISITS[way]}; print('came in')"
        command = [sys.executable, "-c", program, cluster.address, head.address]
    # A program needs a raylet on its machine to connect, which is the head's.
    place = head if way == "init" else machine
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    try:
        done = subprocess.run(
            place.command(command),
            env=environment | {"RAY_raylet_start_wait_time_s": "5"} | token,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired as expired:  # Ray may ask again and again
        return repr(expired.stdout)
    output = done.stdout + done.stderr
    if way in ("join", "status") and done.returncode == 0:
        output += "came in"
    return output


@pytest.mark.parametrize("token", TOKENS_GIVEN)
@pytest.mark.parametrize("way", ["join", "status", *VISITS])
def test_a_process_without_the_token_stays_outside(cluster: Cluster, way: str, token: str) -> None:
    assert "came in" not in visit(cluster, way, TOKENS_GIVEN[token])
    assert cluster.is_ready()


@pytest.mark.parametrize("way", ["status", *VISITS])
def test_a_process_with_the_token_comes_in(cluster: Cluster, way: str) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token_file.read_text()}
    assert "came in" in visit(cluster, way, token)


def test_only_the_ports_of_the_settings_listen_for_rays_commands(cluster: Cluster) -> None:
    """Ray's dashboard, to which jobs are submitted, and its client server are off."""
    listing = subprocess.run(
        cluster.machines[0].command(["ss", "-Hltn"]), capture_output=True, text=True, check=True
    ).stdout
    ports = {int(line.split()[3].rpartition(":")[2]) for line in listing.splitlines()}
    named = {8000, 6379, *range(6400, 6500)}
    assert {8000, 6379, 6400} <= ports
    # The pipeline's own two sockets take free ports, and need the keys of the attempt or carry nothing secret.
    assert len(ports - named) <= 2
    assert not ports & {8265, 10001, 52365}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_streams_outlive_a_stage_that_dies_or_stands_still(
    cluster: Cluster, unharmed: list[Stream], number: signal.Signals
) -> None:
    stage = cluster.stages(cluster.workers[1])[0]
    harmed_at: list[float] = []

    def harm() -> None:
        kill(stage, number)
        harmed_at.append(time.monotonic())
        assert wait_until(lambda: stage not in cluster.stages(), NOTICE_SECONDS + 5)

    check(under_load(cluster, harm), unharmed)
    assert cluster.get("/metrics").text.count("tdpipe_restarts_total")


def test_streams_outlive_the_death_of_a_worker_whose_epoch_is_replaced(
    cluster: Cluster, unharmed: list[Stream]
) -> None:
    def harm() -> None:
        kill(cluster.workers[-1].process.pid)
        cluster.replace_workers(cluster.machines[1:3])

    check(under_load(cluster, harm), unharmed)
    assert "waiting for workers" in cluster.controller_log
    assert all(probe(worker, "ready").status_code == 200 for worker in cluster.workers)


def test_streams_outlive_a_machine_whose_plug_is_pulled(
    cluster: Cluster, unharmed: list[Stream]
) -> None:
    machine = cluster.workers[-1].machine

    def harm() -> None:
        machine.unplug()
        cluster.replace_workers([cluster.machines[3], cluster.machines[1]])

    try:
        check(under_load(cluster, harm), unharmed)
    finally:
        machine.plug_in()


def test_a_signal_lets_all_streams_finish_and_leaves_no_process(cluster: Cluster) -> None:
    assert cluster.controller is not None
    found: list[Stream] = []
    prompts = [f"{question(number, number + 40)}\n" for number in range(32)]

    def run() -> None:
        found.extend(cluster.machines[0].call(lambda: stream_all(cluster.url, prompts, 200)))

    clients = threading.Thread(target=run)
    clients.start()
    assert wait_until(lambda: "requests_running 32.0" in cluster.get("/metrics").text, 60)
    cluster.controller.send_signal(signal.SIGTERM)
    clients.join(120)
    assert [(stream.error, stream.tokens) for stream in found] == [(None, 200)] * 32
    assert cluster.controller.wait(30) == 0
    assert wait_until(lambda: not cluster.stages(), 30)
    for worker in cluster.workers:
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(30) == 0
