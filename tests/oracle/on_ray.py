"""Run by test_ray.py in a process of its own, since Ray settles for one mode in each: starts a
cluster of two machines, plays the given part on it, and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

from rwkv_cli.batch.ray_run import RayRunner
from rwkv_cli.batch.ray_worker import Job
from rwkv_cli.batch.row import Request
from rwkv_cli.batch.wire import packed_answer
from rwkv_cli.errors import RwkvError
from rwkv_cli.sampling import Sampling

MEMORY = 80 << 20  # of the object store, of which the tests need next to nothing


def requests(count: int) -> list[Request]:
    return [
        Request(index, b"Once upon a time, " * (1 + index % 3), Sampling(), index, 1 + index % 30)
        for index in range(count)
    ]


def workers() -> list[int]:
    """The processes of the cluster's workers, which no other user of the machine may have."""
    own = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            title = (entry / "cmdline").read_bytes()
            home = (entry / "environ").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::Worker") and os.environ["HOME"].encode() in home:
            own.append(int(entry.name))
    return own


def tell(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def play(address: str, kills: int, count: int) -> None:
    said: list[str] = []
    runner = RayRunner(Job(None, slots=4), address=address, say=said.append)
    try:
        runner.start()
        answers = []
        for answer in runner.run(requests(count)):
            answers.append(packed_answer(answer).decode())
            if kills and len(answers) > 10:
                os.kill(workers()[0], signal.SIGKILL)
                kills -= 1
        tell({"answers": answers, "said": said})
    except RwkvError as error:
        tell({"error": type(error).__name__, "message": error.message})
    finally:
        runner.close()


if __name__ == "__main__":
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
    if sys.argv[1] == "start":
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        tell(cluster.address)
        sys.stdin.read()
        cluster.shutdown()
    else:
        play(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
