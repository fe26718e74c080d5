"""The CUDA kernels' host: threads wait for one another as on a GPU, and misuse is found."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from oracle.cuda_host import (
    HostKernels,
    compiler,
    host_kernels,
    is_sanitized,
    sanitized_environment,
)
from oracle.cuda_shim import SOURCE, ShimArguments, arguments

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no g++")

Ints = NDArray[np.int32]


@pytest.fixture(scope="module")
def kernels() -> HostKernels:
    return host_kernels(SOURCE)


# --- threads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [32, 96, 256, 1024])
def test_a_block_sums_over_its_warps(kernels: HostKernels, threads: int) -> None:
    x = np.random.default_rng(0).integers(-9, 9, (6, 1500)).astype(np.float32)
    sums = np.empty(6, np.float32)
    kernels.launch("shim_sum", (6, 1, 1), threads, threads // 8, arguments(x, sums, 1500))
    assert sums.tolist() == x.sum(1).tolist()


def neighbours(kernels: HostKernels, choice: int, seed: int) -> Ints:
    found = np.empty((2, 64), np.int32)
    kernels.launch("shim_neighbours", (2, 1, 1), 64, 256, arguments(found, found, 0, choice), seed)
    return found


def test_a_kernel_with_its_barriers_gives_the_same_in_every_order(kernels: HostKernels) -> None:
    expected = np.broadcast_to(np.roll(np.arange(64, dtype=np.int32), -1), (2, 64))
    for seed in range(20):
        np.testing.assert_array_equal(neighbours(kernels, 0, seed), expected)


@pytest.mark.parametrize("choice", [1, 2], ids=["before the reading", "after the reading"])
def test_a_missing_barrier_shows_in_any_order(kernels: HostKernels, choice: int) -> None:
    right = neighbours(kernels, 0, 0)
    results = [neighbours(kernels, choice, seed) for seed in range(5)]
    assert all((result != right).any() for result in results)
    assert any((result != results[0]).any() for result in results[1:])


def test_the_same_seed_is_the_same_order(kernels: HostKernels) -> None:
    np.testing.assert_array_equal(neighbours(kernels, 1, 7), neighbours(kernels, 1, 7))


@pytest.mark.parametrize("threads", [32, 64, 256])
def test_lanes_exchange_as_the_instructions_do(kernels: HostKernels, threads: int) -> None:
    x = np.random.default_rng(threads).integers(0, 100, threads).astype(np.int32)
    t = np.arange(threads)
    votes = (x % 3 == 0).reshape(-1, 32) @ (1 << np.arange(32))
    expected = [
        x[t ^ 5],
        x[t // 8 * 8 + 3],
        x[np.where(t % 16 >= 2, t - 2, t)],
        x[np.where(t % 16 < 14, t + 2, t)],
        np.repeat(votes, 32).astype(np.uint32).view(np.int32),
        np.repeat((x == 40).reshape(-1, 32).any(1), 32),
        x[t ^ 1],
    ]
    for seed in range(50):
        found = np.empty((7, threads), np.int32)
        kernels.launch("shim_lanes", (1, 1, 1), threads, 0, arguments(x, found), seed)
        np.testing.assert_array_equal(found, np.stack(expected))


def test_the_lanes_of_a_partial_warp_vote_among_themselves(kernels: HostKernels) -> None:
    x, found = np.zeros(48, np.int32), np.empty((7, 48), np.int32)
    with pytest.raises(RuntimeError, match=r"__shfl_xor_sync from lane 1\d, which takes no part"):
        kernels.launch("shim_lanes", (1, 1, 1), 10, 0, arguments(x, found))
    kernels.launch("shim_lanes", (1, 1, 1), 48, 0, arguments(x, found))
    assert found[4, 0] == -1
    assert found[4, 47] == 0xFFFF


def test_every_thread_draws_a_ticket_and_the_last_block_knows(kernels: HostKernels) -> None:
    counters = np.zeros(3 + 5 * 96, np.uint32)
    kernels.launch("shim_tickets", (5, 1, 1), 96, 0, arguments(counters, counters))
    assert counters[:3].tolist() == [480, 5, 480]
    np.testing.assert_array_equal(counters[3:], np.arange(480))


# --- what ends a launch -------------------------------------------------------------------------

FAULTS = {
    0: r"block \(\d, 0, 0\): divergence: thread \d+ waits in __syncthreads at shim_kernels.cuh:\d+,"
    " thread 3 has ended",
    1: "divergence: thread .* waits in __syncthreads .*, thread .* waits in __syncthreads",
    2: "divergence: thread .* waits in __shfl_xor_sync .*, thread .* has ended",
    3: "divergence: thread .* waits in __any_sync .*, thread .* waits in __syncthreads",
    4: "thread .*: __syncwarp by lane 0, which its mask fffffffe leaves out",
    5: "thread .*: a load of 16 bytes at the misaligned address",
}


@pytest.mark.parametrize("choice", FAULTS)
def test_what_a_gpu_hangs_or_faults_at_ends_the_launch(kernels: HostKernels, choice: int) -> None:
    x, found = np.zeros(64, np.int32), np.zeros(64, np.int32)
    for _ in range(5):
        with pytest.raises(RuntimeError, match="^shim_faults: .*" + FAULTS[choice]):
            kernels.launch("shim_faults", (2, 1, 1), 128, 16, arguments(x, found, 64, choice))
    sums = np.empty(1, np.float32)  # the next one runs as if nothing had been
    kernels.launch("shim_sum", (1, 1, 1), 128, 16, arguments(np.ones(9, np.float32), sums, 9))
    assert sums[0] == 9


@pytest.mark.parametrize(
    ("grid", "threads", "shared", "reason"),
    [
        ((1, 1, 1), 288, 0, "288 threads, declared for 1 to 256"),
        ((1, 1, 1), 0, 0, "0 threads"),
        ((0, 1, 1), 32, 0, "a grid of 0 x 1 x 1 blocks"),
        ((1, 65536, 1), 32, 0, "a grid of 1 x 65536 x 1 blocks"),
        ((1, 1, 1), 32, 232449, "232449 bytes of shared memory, the most are 232448"),
    ],
)
def test_a_launch_that_a_gpu_refuses_is_refused(
    kernels: HostKernels, grid: tuple[int, int, int], threads: int, shared: int, reason: str
) -> None:
    x = np.zeros(1, np.int32)
    with pytest.raises(RuntimeError, match=reason):
        kernels.launch("shim_faults", grid, threads, shared, arguments(x, x, choice=-1))


class Empty(ctypes.Structure):
    _fields_ = [("nothing", ctypes.c_char)]


def test_a_wrong_name_or_structure_is_refused(kernels: HostKernels) -> None:
    with pytest.raises(RuntimeError, match="there is no kernel shim_nothing"):
        kernels.launch("shim_nothing", (1, 1, 1), 32, 0, ShimArguments())
    with pytest.raises(RuntimeError, match="shim_sum takes 24 bytes of arguments, not 1"):
        kernels.launch("shim_sum", (1, 1, 1), 32, 0, Empty())


@pytest.mark.skipif(is_sanitized(), reason="the sanitizer ends the process there")
def test_a_write_behind_shared_memory_is_found_without_a_sanitizer(kernels: HostKernels) -> None:
    x = np.zeros(1, np.int32)
    with pytest.raises(RuntimeError, match="shared memory is written to behind its end"):
        kernels.launch("shim_faults", (1, 1, 1), 32, 16, arguments(x, x, 16, 6))


# --- under the address sanitizer ----------------------------------------------------------------

CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from oracle.cuda_host import host_kernels
from oracle.cuda_shim import SOURCE, arguments

kernels = host_kernels(SOURCE)
sums = np.empty(6, np.float32)
kernels.launch("shim_sum", (6, 1, 1), 256, 32, arguments(np.ones((6, 99), np.float32), sums, 99))
assert sums.tolist() == [99] * 6
count, choice = map(int, sys.argv[2:])
x, found = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
kernels.launch("shim_faults", (2, 1, 1), 64, 16, arguments(x, found, count, choice))
"""


def run_sanitized(count: int, choice: int) -> subprocess.CompletedProcess[str]:
    environment = sanitized_environment()
    if environment is None:
        pytest.skip("the compiler has no address sanitizer")
    tests = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-c", CHILD, tests, str(count), str(choice)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_kernel_within_its_memory_passes_the_sanitizer() -> None:
    done = run_sanitized(0, -1)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("choice", "count", "report"),
    [
        (6, 16, "heap-buffer-overflow"),
        (7, 64, "heap-buffer-overflow"),
        (8, 64, "heap-buffer-overflow"),
        (9, 0, "load of misaligned address"),
    ],
    ids=["shared memory", "a write behind an array", "a read behind an array", "a misaligned read"],
)
def test_the_sanitizer_finds(choice: int, count: int, report: str) -> None:
    done = run_sanitized(count, choice)
    assert done.returncode != 0
    assert report in done.stderr
    assert "shim_kernels.cuh" in done.stderr
