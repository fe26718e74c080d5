"""Trained models made by others give the logits that their makers published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracle.models import distance, load

PROMPT = list(b'"in')


@pytest.mark.parametrize(
    ("name", "logits", "tolerance"),
    [
        ("tiny-rwkv-4v0-660K-FP32", "4v0-660K", 1e-4),
        ("tiny-rwkv-7v0-834K-FP32", "7v0-834K", 1e-4),
        ("tiny-rwkv-7v0-834K-FP16", "7v0-834K", 1e-4),
        # The logits are those of the whole weights, so that much is what five bits lose, and on the
        # native engine, which keeps such files as int8, eight.
        ("tiny-rwkv-4v0-660K-Q5_1", "4v0-660K", 1.2e-2),
        ("tiny-rwkv-7v0-834K-Q5_1", "7v0-834K", 5e-3),
    ],
)
def test_logits_are_the_published_ones(
    shared_data: Path, name: str, logits: str, tolerance: float, engine: str
) -> None:
    expected = np.fromfile(shared_data / f"expected-logits-{logits}.bin", dtype="<f4")
    model = load(shared_data / f"{name}.bin", engine=engine)
    at_once, _ = model.prefill(PROMPT)
    state = model.zero_state()
    for token in PROMPT:
        stepwise, state = model.decode(token, state)
    assert distance(at_once, expected) < tolerance
    assert distance(stepwise, expected) < tolerance


@pytest.mark.parametrize("name", ["tiny-rwkv-4v0-660K-FP32", "tiny-rwkv-7v0-834K-FP32"])
def test_trained_model_writes_words(shared_data: Path, name: str, engine: str) -> None:
    model = load(shared_data / f"{name}.bin", engine=engine)
    logits, state = model.prefill(list(b"The quick brown fox is a small animal that"))
    text = b""
    for _ in range(30):
        text += bytes([int(logits.argmax())])
        logits, state = model.decode(text[-1], state)
    assert text.isascii()
    assert b" " in text
