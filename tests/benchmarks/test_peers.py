"""The comparison's arithmetic, and how it looks at processes from outside."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from processes import FailedError, run
from report import Report
from targets import ratios, shares

VALUES = {
    ("v7-1.5b", "rwkv-cli bf16", "prefill"): [130.0, 140.0, 150.0],
    ("v7-1.5b", "llama.cpp F16", "prefill"): [70.0],
    ("v7-1.5b", "llama.cpp BF16", "prefill"): [90.0, 100.0, 200.0],
    ("v7-1.5b", "rwkv-cli int8", "start"): [0.6],
    ("v7-1.5b", "llama.cpp Q8_0", "start"): [0.4],
    ("v7-1.5b", "rwkv-cli int8", "decode"): [20.0],
}


def test_medians_are_compared_with_the_best_peer():
    found = {reached.what: reached for reached in ratios(VALUES)}
    assert found["v7-1.5b: rwkv-cli bf16 prefill / llama.cpp BF16"].value == 1.4
    assert found["v7-1.5b: rwkv-cli bf16 prefill / llama.cpp BF16"].met


def test_a_start_must_not_take_longer_than_the_bound():
    (start,) = [reached for reached in ratios(VALUES) if "start" in reached.what]
    assert start.value == pytest.approx(1.5)
    assert not start.met


def test_the_share_of_the_floor_is_of_what_memory_gave_in_the_same_round():
    key = ("v7-1.5b", "rwkv-cli int8", "decode")
    values = {key: [20.0, 10.0, 12.0]}
    (share,) = shares(values, {key[:2]: 1_000_000_000}, {key: [25e9, 12.5e9, 20e9]})
    assert share.value == pytest.approx(0.8)


def test_a_report_names_targets_and_failures():
    report = Report(threads=2, rounds=1, values=dict(VALUES))
    report.memory = {key: [2e9] for key in VALUES}
    report.sizes = {key[:2]: 1_950_000_000 for key in VALUES}
    report.dense = {key[:2]: 1_000_000_000 for key in VALUES}
    report.reads = {key: [25e9] for key in VALUES if key[2] == "decode"}
    report.failed["a b"] = "it fell"
    text = report.markdown()
    assert "| v7-1.5b: rwkv-cli int8 start / llama.cpp Q8_0 | 1.50 | ≤ 1.3 | **no** |" in text
    assert "MB of memory beyond the weights | 50.00 | ≤ 200 | yes |" in text
    assert "- a b: it fell" in text


def test_a_process_is_timed_to_its_first_byte_and_its_memory_counted():
    code = "import sys, time; b = bytearray(200 << 20); print('x', flush=True); time.sleep(0.4)"
    done = run([sys.executable, "-S", "-c", code], threads=1)
    slow = run([sys.executable, "-S", "-c", "import time; time.sleep(0.4)"], threads=1)
    assert done.output == b"x\n"
    assert done.peak > 200 << 20
    assert slow.first_s >= 0.4


def test_a_failing_process_tells_its_last_words():
    with pytest.raises(FailedError, match="last words"):
        run([sys.executable, "-c", "raise SystemExit('last words')"], threads=1)
