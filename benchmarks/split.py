"""Check split and streamed runs of the torch engine on a CUDA card: `python benchmarks/split.py`.

It runs from a checkout, with torch and numpy alone, in less than 45 seconds. Every line is a check
or a measurement; the last one says how many checks failed, and so does the exit status.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

BEGAN = time.perf_counter()
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
os.environ.setdefault("RWKV_CACHE_DIR", str(Path(tempfile.gettempdir()) / "rwkv-split-cache"))
if importlib.util.find_spec("platformdirs") is None:
    sys.path.append(str(HERE / "gpu" / "stand_ins"))

import numpy as np  # noqa: E402 - found through the paths just set
import torch  # noqa: E402
from gpu.models import SHAPES, tensors  # noqa: E402

from rwkv_cli.arch.detect import detect  # noqa: E402
from rwkv_cli.checkpoints.tensors import Checkpoint, RawTensor  # noqa: E402
from rwkv_cli.engine.estimate import Plan, estimate  # noqa: E402
from rwkv_cli.engine.footprint import torch_footprint  # noqa: E402
from rwkv_cli.engine.memory import Machine, this_machine  # noqa: E402
from rwkv_cli.engine.modelfile import ModelFile  # noqa: E402
from rwkv_cli.engine.plan import choose  # noqa: E402
from rwkv_cli.engine.segments import parse_segments, places, settle  # noqa: E402
from rwkv_cli.engine.strategy import Budgets  # noqa: E402
from rwkv_cli.engine.torch_engine import TorchEngine  # noqa: E402
from rwkv_cli.engine.torch_split import split_engine  # noqa: E402
from rwkv_cli.engine.torch_stream import Streamed  # noqa: E402
from rwkv_cli.engine.torch_weights import load_stack  # noqa: E402

CARD = torch.device("cuda", 0)
PROMPT = [(7 * i + 3) % 60000 + 1 for i in range(40)]
NEXT = [11, 22, 33, 44]
FAILED: list[str] = []

Arrays = list[np.ndarray]


def say(name: str, value: str, ok: bool | None = None) -> None:
    """Print a line of the table, and note a check that failed."""
    mark = {None: "", True: "ok", False: "FAILED"}[ok]
    if ok is False:
        FAILED.append(name)
    print(f"{time.perf_counter() - BEGAN:6.1f} s  {mark:<6}  {name:<56}  {value}", flush=True)


def ms(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1e3:.1f} ms"


def drawn() -> ModelFile:
    """Draw a 1.5B, in host memory as bf16."""
    raws = []
    for name, made in tensors(SHAPES["v7-1.5b"], CARD):
        flat = made.to(torch.bfloat16).cpu().contiguous().view(torch.uint8).numpy().reshape(-1)
        raws.append(RawTensor(name, "BF16", tuple(made.shape), memoryview(flat)))
    torch.cuda.empty_cache()
    arch, dims = detect({raw.name: raw.shape for raw in raws})
    return ModelFile(Checkpoint.in_memory(Path("drawn"), raws), arch, dims, None, "world")


def run(engine: TorchEngine) -> Arrays:
    """Give logits after a prompt, after some tokens and of a batch, and the states."""
    state = engine.zero_state()
    found = [engine.prefill(PROMPT, state)]
    found += [engine.decode([token], [state]) for token in NEXT]
    twin = state.clone()
    found.append(engine.decode([5, 6], [state, twin]))
    return [*found, *(a.copy() for a in state.arrays.values()), *twin.arrays.values()]


def same(one: Arrays, other: Arrays) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def distance(out: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(out - reference) / np.linalg.norm(reference))


def token_seconds(engine: TorchEngine, count: int = 20) -> float:
    """Time decoding."""
    state = engine.zero_state()
    engine.decode([1], [state])
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for token in range(1, count + 1):
        engine.decode([token], [state])
    return (time.perf_counter() - begin) / count


def allocated() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated(CARD)


def made(file: ModelFile, text: str, machine: Machine) -> tuple[TorchEngine, Plan]:
    """Load a model, and compare the memory that it takes on the card with the plan."""
    total = file.dims.layers + 1
    segments = settle(parse_segments(text), total)
    where = places(segments, total)
    plan = estimate(file, segments, "torch", machine)
    before, begin = allocated(), time.perf_counter()
    engine = split_engine(file, where)
    took, used = time.perf_counter() - begin, allocated() - before
    moved = [layer.streamed for layer in torch_footprint(file, where, where[0].floats).layers]
    buffers = min(2, sum(map(bool, moved))) * max(moved)
    planned = sum(r.resident for r in plan.rows if r.device.startswith("cuda")) + buffers
    off = used / planned - 1
    value = f"{used / 1e6:.1f} MB, {off:+.2%} of the plan; loaded in {took:.1f} s"
    say(f"{text}: bytes on the card", value, abs(off) < 0.02)
    return engine, plan


def check_machine(machine: Machine) -> None:
    """Compare what is seen without torch with what torch says."""
    free, total = torch.cuda.mem_get_info(0)
    card = machine.card("cuda")
    found = card is not None and card.name == torch.cuda.get_device_name(0)
    say("the card is found without torch", str(card), found)
    near = card is not None and card.free is not None and abs(card.free - free) < 3e9
    say(
        "its free memory is torch's, but for a context",
        f"{free / 1e9:.2f} of {total / 1e9:.2f} GB",
        near,
    )


def check_choice(file: ModelFile, machine: Machine) -> None:
    for vram in (None, 4_000_000_000, 2_500_000_000, 1_200_000_000, 300_000_000):
        begin = time.perf_counter()
        plan = choose(file, machine, Budgets(vram=vram))
        took = time.perf_counter() - begin
        value = f"{plan.strategy_text} ({plan.engine}), {ms(plan.seconds_per_token)} a token"
        say(f"chosen within {(vram and f'{vram / 1e9} GB') or 'all'}", value, took < 1)


def check_streams(file: ModelFile, machine: Machine) -> Arrays:
    """Compare streamed layers with resident ones, and their speed with that of the bus."""
    stack = load_stack(file.checkpoint, file.arch, file.dims, "fp16", "cuda:0")
    plain = TorchEngine(stack, file.arch, file.dims, "cuda:0")
    reference, computing = run(plain), token_seconds(plain)
    say("unsplit cuda fp16", f"{ms(computing)} a token")
    del plain, stack
    engine, plan = made(file, "cuda fp16 *0+", machine)
    say("cuda fp16 *0+ equals it bit for bit", engine.numerics, same(run(engine), reference))
    copying, nbytes = copy_seconds(engine.stack.layers)
    rate, token = nbytes / copying, token_seconds(engine)
    say("copies alone", f"{ms(copying)} for {nbytes / 1e9:.2f} GB: {rate / 1e9:.1f} GB/s")
    slower = max(copying, computing)
    value = (
        f"{ms(token)} = {1 / token:.1f} tok/s, {nbytes / token / rate:.0%} of the bus; "
        f"planned {ms(plan.seconds_per_token)}; one after the other {ms(copying + computing)}"
    )
    say("a streamed token takes the slower of both", value, token < 1.25 * slower + 2e-3)
    del engine
    for text in ("cuda fp16 *20+", "cuda fp16 *23+"):
        engine, _ = made(file, text, machine)
        value = f"{ms(token_seconds(engine))} a token"
        say(f"{text} equals it bit for bit", value, same(run(engine), reference))
        del engine
    return reference


def copy_seconds(layers: object) -> tuple[float, int]:
    """Time the copies of one pass and nothing else; also gives their bytes."""
    assert isinstance(layers, Streamed)
    waiting, buffer, rounds = layers._waiting, layers.buffers[0], 3
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(rounds):
        for layer in waiting:
            buffer[: layer.flat.numel()].copy_(layer.flat, non_blocking=True)
    issued = (time.perf_counter() - begin) / rounds
    torch.cuda.synchronize()
    took = (time.perf_counter() - begin) / rounds
    say("the host does not wait for copies", f"{ms(issued)} of {ms(took)}", issued < 0.5 * took)
    return took, sum(layer.flat.numel() for layer in waiting)


def check_split(file: ModelFile, machine: Machine, reference: Arrays) -> None:
    text = "cuda fp16 *12 -> cpu fp32"
    engine, plan = made(file, text, machine)
    found = run(engine)
    off = max(distance(a, b) for a, b in zip(found[:6], reference[:6], strict=True))
    took = ms(token_seconds(engine, 4))
    value = f"{off:.1e}; {took} a token, planned {ms(plan.seconds_per_token)}"
    say(f"{text} is near the unsplit run", value, off < 5e-3)


def check_few_bits(file: ModelFile, machine: Machine, reference: Arrays) -> None:
    for still, moving, bound in (
        ("cuda fp16i8 *24 -> cpu fp32 *1", "cuda fp16i8 *0+ -> cpu fp32 *1", 0.1),
        ("cuda fp16i8", "cuda fp16i8 *5+", 0.1),
        ("cuda fp16i4", "cuda fp16i4 *0+", 0.5),
    ):
        engine, _ = made(file, still, machine)
        expected, resident = run(engine), token_seconds(engine, 6)
        del engine
        engine, plan = made(file, moving, machine)
        value = f"{ms(token_seconds(engine, 6))} a token, planned {ms(plan.seconds_per_token)}"
        say(f"{moving} equals the resident run", value, same(run(engine), expected))
        off = distance(expected[0], reference[0])
        say(f"{still} is near fp16", f"{off:.3f}; {ms(resident)} a token", off < bound)
        del engine


def main() -> None:
    """Run everything."""
    begin = time.perf_counter()
    machine = this_machine()
    say("looking at the machine", ms(time.perf_counter() - begin))
    check_machine(machine)
    file = drawn()
    check_choice(file, machine)
    reference = check_streams(file, machine)
    check_split(file, machine, reference)
    check_few_bits(file, machine, reference)
    took = time.perf_counter() - BEGAN
    print(f"{len(FAILED)} failed: {', '.join(FAILED) or 'none'}; {took:.1f} s", flush=True)
    sys.exit(bool(FAILED))


if __name__ == "__main__":
    main()
