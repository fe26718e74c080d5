"""Processes that are killed, and processes that share: what is published is whole, always."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hub.conftest import FILE, REPO, Bench, content

HURRIED = Path(__file__).with_name("hurried.py")
KILLS = int(os.environ.get("RWKV_TEST_KILLS", "8"))
RATE = 3_000_000  # bytes a second and connection


def start(bench: Bench, asked: str = f"{REPO}:{FILE}") -> subprocess.Popen[bytes]:
    """Start a download in a process of its own."""
    return subprocess.Popen(
        [sys.executable, HURRIED, "download", asked, "--connections", "3"],
        env={**os.environ, "HF_ENDPOINT": bench.liar.hub, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_download_killed_at_any_byte_goes_on_and_ends_whole(bench: Bench) -> None:
    """Killed again and again, each time a random number of bytes further on."""
    bench.content = bench.liar.add(REPO, FILE, content(3_000_017))
    rng = random.Random(KILLS)
    kept = 0
    for _ in range(KILLS):
        bench.liar.rate = RATE
        aim = bench.liar.served + rng.randrange(1, 1_500_000)
        process = start(bench)
        wait_until(lambda p=process, a=aim: bench.liar.served >= a or p.poll() is not None)
        process.kill()
        process.communicate()
        if bench.place.exists():
            assert bench.place.read_bytes() == bench.content
            bench.place.unlink()
        kept += any(bench.models.rglob("*.journal"))
    bench.liar.rate, bench.liar.served = 0, 0
    code, out, err = finish(start(bench))
    assert (code, out) == (0, f"{bench.place}\n"), err
    assert bench.place.read_bytes() == bench.content
    assert bench.litter() == [f"{FILE}.json"]
    assert kept or KILLS < 4


def test_an_interrupt_says_that_what_came_is_kept_and_it_is(bench: Bench) -> None:
    bench.content = bench.liar.add(REPO, FILE, content(3_000_017))
    bench.liar.rate = RATE
    process = start(bench)
    wait_until(lambda: bench.liar.served > 1_000_000)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out) == (130, "")
    assert "what has come is kept" in err
    bench.liar.rate, bench.liar.served = 0, 0
    code, _out, err = finish(start(bench))
    assert code == 0, err
    assert bench.place.read_bytes() == bench.content
    assert bench.liar.served < 2_500_000
    assert "going on with" in err


def test_two_processes_share_one_download(bench: Bench) -> None:
    bench.content = bench.liar.add(REPO, FILE, content(2_000_003))
    bench.liar.rate = RATE
    processes = [start(bench), start(bench)]
    for process in processes:
        code, out, err = finish(process)
        assert (code, out) == (0, f"{bench.place}\n"), err
    assert bench.place.read_bytes() == bench.content
    assert bench.liar.served < 1.2 * len(bench.content)
    assert bench.litter() == [f"{FILE}.json"]


def test_processes_share_a_folder_as_well(bench: Bench) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        bench.liar.add("someone/folder", name, content(300_000, len(name)))
    bench.liar.rate = RATE
    processes = [start(bench, "someone/folder") for _ in range(3)]
    for process in processes:
        code, out, err = finish(process)
        assert (code, out) == (0, f"{bench.models / 'folder'}\n"), err
    assert bench.liar.served < 1_300_000
    for name, data in bench.liar.files["someone/folder"].items():
        assert (bench.models / "folder" / name).read_bytes() == data
    left = [path for path in bench.models.rglob("*") if path.is_file()]
    assert len(left) == 4


def test_when_the_one_at_work_dies_the_other_takes_over(bench: Bench) -> None:
    bench.content = bench.liar.add(REPO, FILE, content(3_000_017))
    bench.liar.rate = RATE
    first = start(bench)
    wait_until(lambda: bench.liar.served > 600_000)
    second = start(bench)
    wait_until(lambda: bench.liar.served > 1_500_000)
    first.kill()
    first.communicate()
    bench.liar.rate = 0
    code, _out, err = finish(second)
    assert code == 0, err
    assert bench.place.read_bytes() == bench.content
    assert bench.liar.served < 1.9 * len(bench.content)


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_request_to_end_keeps_what_came(bench: Bench, number: signal.Signals) -> None:
    bench.content = bench.liar.add(REPO, FILE, content(3_000_017))
    bench.liar.rate = RATE
    process = start(bench)
    wait_until(lambda: bench.liar.served > 1_000_000)
    process.send_signal(number)
    assert finish(process)[0] == 143
    assert not bench.place.exists()
    assert list(bench.models.rglob("*.journal"))
