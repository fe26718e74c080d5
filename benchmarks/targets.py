"""The ratios this program must reach against its peers in one run, and what a run reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

# (model, engine, measure) to its values, one a round.
Values = Mapping[tuple[str, str, str], list[float]]


@dataclass(frozen=True)
class Target:
    """A ratio of two measurements of one model.

    Attributes:
        model: Which.
        ours: Engine and measure that are divided.
        peers: Engines and measures they are divided by; the best of these counts.
        bound: What the ratio must reach, or must not pass.
        at_most: The ratio must not pass the bound.
    """

    model: str
    ours: tuple[str, str]
    peers: tuple[tuple[str, str], ...]
    bound: float
    at_most: bool = False


def _decode(model: str, dtype: str, peers: str, bound: float) -> Target:
    against = tuple((f"llama.cpp {kind}", "decode") for kind in peers.split())
    return Target(model, (f"rwkv-cli {dtype}", "decode"), against, bound)


def _against_package(*models: str) -> Iterator[Target]:
    for model in models:
        for what, bound in (("decode", 3.0), ("prefill", 2.0)):
            best = (("rwkv fp32", what), ("rwkv bf16", what))
            yield Target(model, ("rwkv-cli bf16", what), best, bound)


def _one(model: str, dtype: str, bound: float) -> Target:
    ours = f"rwkv-cli {dtype}"
    return Target(model, (ours, "batch 8"), ((ours, "decode"),), bound)


_PREFILL = (("llama.cpp F16", "prefill"), ("llama.cpp BF16", "prefill"))

TARGETS = [
    _decode("v7-1.5b", "bf16", "F16", 1.15),
    _decode("v7-1.5b", "int8", "Q8_0", 1.45),
    _decode("v7-1.5b", "int4", "Q4_0", 1.4),
    _decode("v7-1.5b", "int4", "Q4_K_M", 1.3),
    _decode("v7-0.1b", "bf16", "F16", 1.2),
    _decode("v7-0.1b", "int8", "Q8_0", 1.6),
    _decode("v7-0.1b", "int4", "Q4_0", 1.5),
    Target("v7-1.5b", ("rwkv-cli bf16", "prefill"), _PREFILL, 1.35),
    Target("v7-1.5b", ("rwkv-cli int8", "prefill"), (("llama.cpp Q8_0", "prefill"),), 2.5),
    _decode("v6-1.6b", "int8", "Q8_0", 1.15),
    _decode("v6-1.6b", "int4", "Q4_0", 1.15),
    *(
        t
        for m in ("v7-0.1b", "v7-0.4b", "v7-1.5b", "v4-169m", "v4-1.5b")
        for t in _against_package(m)
    ),
    Target("v7-1.5b", ("rwkv-cli int8", "batch 8"), (("llama.cpp Q8_0", "batch 8"),), 2.0),
    Target("v7-0.1b", ("rwkv-cli int8", "batch 32"), (("llama.cpp Q8_0", "batch 32"),), 2.5),
    _one("v7-1.5b", "bf16", 4.5),
    _one("v7-1.5b", "int8", 4.0),
    Target("v7-1.5b", ("rwkv-cli int8", "start"), (("llama.cpp Q8_0", "start"),), 1.3, True),
]

# Share of what the machine's read bandwidth allows for reading every weight once a token.
FLOORS = {
    ("v7-1.5b", "bf16"): 0.90,
    ("v7-1.5b", "int8"): 0.90,
    ("v7-1.5b", "int4"): 0.90,
    ("v7-0.4b", "bf16"): 0.75,
    ("v7-0.4b", "int8"): 0.75,
    ("v7-0.4b", "int4"): 0.75,
    ("v7-0.1b", "bf16"): 0.65,
    ("v7-0.1b", "int8"): 0.65,
    ("v7-0.1b", "int4"): 0.65,
    ("v4-169m", "fp32"): 0.88,
    ("v4-169m", "int8"): 0.75,
}
DEMO_START = 0.3  # seconds from the start of the process to the demo model's first token
EXTRA_MEMORY = 200e6  # bytes of memory beside the weights


@dataclass(frozen=True)
class Reached:
    """A target and what a run reached; a share has no peer."""

    what: str
    value: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Tell whether it is reached."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def ratios(values: Values) -> Iterator[Reached]:
    """Compare what a run has of TARGETS, medians with medians."""
    for target in TARGETS:
        theirs = {peer: values.get((target.model, *peer)) for peer in target.peers}
        peers = {peer: median(found) for peer, found in theirs.items() if found}
        ours = values.get((target.model, *target.ours))
        if not ours or not peers:
            continue
        best = (min if target.at_most else max)(peers, key=lambda p: peers[p])
        other = best[0] if best[1] == target.ours[1] else f"{best[0]} {best[1]}"
        what = f"{target.model}: {' '.join(target.ours)} / {other}"
        yield Reached(what, median(ours) / peers[best], target.bound, target.at_most)
    if demo := values.get(("demo", "rwkv-cli fp32", "start")):
        yield Reached("demo: seconds to the first token", median(demo), DEMO_START, at_most=True)


def share(rates: list[float], weights: int, reads: list[float]) -> float:
    """Give the share of the bandwidth floor: the median over rounds of weights in bytes times
    tokens a second, by the read bandwidth just before in bytes a second.
    """
    return median(rate * weights / read for rate, read in zip(rates, reads, strict=True))


def shares(
    values: Values, weights: Mapping[tuple[str, str], int], reads: Values
) -> Iterator[Reached]:
    """Give the shares in FLOORS, for the bytes of weights that a token needs."""
    for (model, dtype), bound in FLOORS.items():
        engine = f"rwkv-cli {dtype}"
        key = (model, engine, "decode")
        if key in values:
            reached = share(values[key], weights[model, engine], reads[key])
            yield Reached(f"{model}: {engine} decode, share of the bandwidth floor", reached, bound)


def memory(peaks: Values, weights: Mapping[tuple[str, str], int]) -> Iterator[Reached]:
    """Give the most memory beyond the weights, in megabytes, that one sequence took."""
    most: dict[tuple[str, str], float] = {}
    for (model, engine, what), found in peaks.items():
        if engine.startswith("rwkv-cli") and what in ("decode", "prefill", "start"):
            most[model, engine] = max(*found, most.get((model, engine), 0.0))
    for (model, engine), peak in most.items():
        beyond = (peak - weights[model, engine]) / 1e6
        name = f"{model}: {engine}, MB of memory beyond the weights"
        yield Reached(name, beyond, EXTRA_MEMORY / 1e6, at_most=True)
