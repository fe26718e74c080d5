"""What speed is expected of: tokens a second on an H200, and shares of what the card allows."""

from __future__ import annotations

# (model, precision, batch) of decoding, in tokens a second of all sequences.
DECODE = {
    ("v7-0.1b", "fp16", 1): 5000,
    ("v7-0.4b", "fp16", 1): 2800,
    ("v7-1.5b", "fp16", 1): 1300,
    ("v7-2.9b", "fp16", 1): 750,
    ("v7-7.2b", "fp16", 1): 340,
    ("v7-1.5b", "int8", 1): 1900,
    ("v7-7.2b", "int8", 1): 600,
    ("v7-7.2b", "int4", 1): 850,
    ("v7-7.2b", "fp16", 64): 9000,
    ("v7-7.2b", "fp16", 256): 20000,
}
# (model, precision) of a prefill of 1,024 tokens and more.
PREFILL = {("v7-1.5b", "fp16"): 120_000, ("v7-7.2b", "fp16"): 33_000}
# Of the floor, at batch 1 in fp16.
SHARES = {"v7-0.1b": 0.35, "v7-1.5b": 0.60, "v7-2.9b": 0.80, "v7-7.2b": 0.80}
PEER = 3.0  # times the package `rwkv` at batch 1
