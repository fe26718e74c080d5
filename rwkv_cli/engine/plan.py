"""How a model is run where: a plan for what was asked for, or the best one for this machine.

A plan is made from the header of the file and the memory that is free; no weights are read, and
neither numpy nor torch is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from rwkv_cli.engine.estimate import Plan, estimate
from rwkv_cli.engine.footprint import torch_footprint
from rwkv_cli.engine.memory import Card, Machine, this_machine
from rwkv_cli.engine.modelfile import ModelFile, check_precision
from rwkv_cli.engine.placement import is_coded, why_unsupported
from rwkv_cli.engine.segments import Place, Segment, in_parts, parse_segments, settle
from rwkv_cli.engine.strategy import AUTO, Budgets, Strategy, is_small
from rwkv_cli.errors import LimitError, UsageError
from rwkv_cli.native.library import unavailable_reason

# Bytes a second, for a choice between ways when nothing tells the real ones.
_USUAL_READ, _USUAL_CARD, _USUAL_LINK = 2e10, 3e11, 1.2e10


def plan_for(
    file: ModelFile,
    strategy_text: str | None = None,
    budgets: Budgets | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Plan how to run a model.

    Args:
        file: The model.
        strategy_text: A strategy string; None or "auto" is the best way here.
        budgets: What may be taken; None is all that is free.
        machine: What there is; None looks, and measures the speed of memory once.

    Raises:
        PointedError: The strategy is malformed.
        UsageError: The file cannot be run so.
        LimitError: Nothing fits.
    """
    machine = machine or this_machine(measure=True)
    if strategy_text is None or strategy_text.strip() == AUTO:
        return choose(file, machine, budgets)
    segments = settle(parse_segments(strategy_text), file.dims.layers + 1)
    if file.packed and in_parts(segments):
        raise not_in_parts(file)
    check_precision(file, segments[0].dtype)
    return estimate(file, segments, engine_for(file, segments), machine, budgets)


def not_in_parts(file: ModelFile) -> UsageError:
    """Say that a packed file is run whole."""
    return UsageError(
        f"{file.checkpoint.path}: is packed for the native engine and the CUDA kernels, which take "
        "it whole",
        hint="name the file that it was made from",
    )


def engine_for(
    file: ModelFile, segments: Sequence[Segment], engine: str | None = None, kernels: bool = True
) -> str:
    """Name the engine that runs segments as `settle` gives them: "native", "cuda" or "torch".

    Args:
        file: The model.
        segments: Where it goes.
        engine: What was asked for.
        kernels: Whether kernels of our own are wanted on a card.
    """
    if in_parts(segments) or engine == "torch":
        return "torch"
    if segments[0].device.startswith("cuda"):
        return "cuda" if kernels else "torch"
    here = segments[0].device == "cpu" and runs_native(file)
    return "native" if here else "torch"


def runs_native(file: ModelFile) -> bool:
    """Tell whether the native engine is there and runs this model."""
    return unavailable_reason() is None and why_unsupported(file.dims) is None


def choose(file: ModelFile, machine: Machine, budgets: Budgets | None = None) -> Plan:
    """Choose how to run a model here.

    In this order: on a card in the file's precision, on a card in int8; whichever is predicted to
    be fastest of a model split between card and processor, of layers streamed to the card, and of
    the processor alone in the file's precision; then int8 on the processor, then int4.

    Raises:
        LimitError: Nothing fits.
    """
    tried: list[Plan] = []
    small = is_small(file.checkpoint.path)
    if not small:
        for card in sorted(machine.cards, key=lambda c: -(c.free or 0)):
            for plan in _on_card(file, card, machine, budgets):
                if plan.fits:
                    return _because(plan, tried)
                tried.append(plan)
    whole = _natural_on_cpu(file, machine, budgets)
    between = [] if small or file.packed else list(_between(file, machine, budgets))
    fitting = [plan for plan in (*between, whole) if plan.fits]
    if fitting:
        best = min(fitting, key=lambda p: p.seconds_per_token or 0.0)
        # What was guessed served to compare, not to promise.
        told = estimate(file, best.segments, best.engine, machine, budgets, natural=best.natural)
        return _because(told, tried)
    tried.append(whole)
    for plan in _smaller_on_cpu(file, machine, budgets):
        if plan.fits:
            return _because(plan, tried)
        tried.append(plan)
    raise _nothing_fits(file, tried)


def _on_card(
    file: ModelFile, card: Card, machine: Machine, budgets: Budgets | None
) -> Iterator[Plan]:
    """Plan a whole model on a card, in its own precision and in int8."""
    device = card.device.removesuffix(":0")
    if file.packed:
        segment = _packed_segment(file, device)
        segments = settle((segment,), file.dims.layers + 1)
        yield estimate(file, segments, "cuda", machine, budgets, natural=True)
        return
    floats = _card_floats(file)
    if not is_coded(file.checkpoint.tensors):
        yield _whole(file, Segment(device, floats), "cuda", machine, budgets)
    if unavailable_reason() is None:
        yield _whole(file, Segment(device, "fp16", 8), "cuda", machine, budgets)


def _whole(
    file: ModelFile, segment: Segment, engine: str, machine: Machine, budgets: Budgets | None
) -> Plan:
    segments = settle((segment,), file.dims.layers + 1)
    return estimate(file, segments, engine, machine, budgets)


def _card_floats(file: ModelFile) -> str:
    """Give the precision that a card takes for that of a file."""
    return "fp32" if file.floats == "fp32" else "fp16"


def _packed_segment(file: ModelFile, device: str) -> Segment:
    assert file.packed
    dtype = file.packed.dtype
    return Segment(device, "fp16", int(dtype[3:])) if dtype[:3] == "int" else Segment(device, dtype)


def _natural_on_cpu(file: ModelFile, machine: Machine, budgets: Budgets | None) -> Plan:
    """Plan a model on the processor in the precision of its file."""
    native = runs_native(file)
    if file.packed:
        segment = _packed_segment(file, "cpu")
    elif is_coded(file.checkpoint.tensors) and native:
        segment = Segment("cpu", "fp16", 8)
    else:
        segment = Segment("cpu", file.floats)
    segments = settle((segment,), file.dims.layers + 1)
    engine = "native" if native else "torch"
    return estimate(file, segments, engine, _guessed(machine), budgets, natural=True)


def _smaller_on_cpu(file: ModelFile, machine: Machine, budgets: Budgets | None) -> Iterator[Plan]:
    """Plan a model on the processor in fewer bits than its file has."""
    if file.packed:
        return
    engine = "native" if runs_native(file) else "torch"
    for bits in (4,) if is_coded(file.checkpoint.tensors) and engine == "native" else (8, 4):
        yield _whole(file, Segment("cpu", "fp16", bits), engine, machine, budgets)


def _between(file: ModelFile, machine: Machine, budgets: Budgets | None) -> Iterator[Plan]:
    """Plan what a card and the processor can do together, where the model is too large for the
    card.
    """
    guessed = _guessed(machine)
    floats = _card_floats(file)
    for card in guessed.cards:
        device = card.device.removesuffix(":0")
        for bits in (None, 8):
            one = Segment(device, floats, bits)
            kept = _layers_that_fit(file, one, guessed, budgets)
            if kept is None:
                continue
            ways: list[tuple[Segment, ...]] = [(replace(one, count=kept, streams=True),)]
            rest = dict.fromkeys((file.floats, "fp32"))
            ways += [(replace(one, count=kept), Segment("cpu", f)) for f in rest if kept]
            for way in ways:
                segments = settle(way, file.dims.layers + 1)
                yield estimate(file, segments, "torch", guessed, budgets)


def _layers_that_fit(
    file: ModelFile, segment: Segment, machine: Machine, budgets: Budgets | None
) -> int | None:
    """Count the layers that a card can keep while the others are streamed to it; None when there is
    not even room for streaming.
    """
    bare = settle((replace(segment, count=0, streams=True),), file.dims.layers + 1)
    plan = estimate(file, bare, "torch", machine, budgets)
    room = plan.free.get(segment.device, 0) - plan.peaks[segment.device]
    if room < 0:
        return None
    place = Place(segment.device, segment.floats, segment.bits, streamed=True)
    sizes = torch_footprint(file, [place] * (file.dims.layers + 1), segment.floats)
    kept = 0
    for layer in sizes.layers[:-1]:
        room -= layer.streamed
        if room < 0:
            break
        kept += 1
    return kept


def _guessed(machine: Machine) -> Machine:
    """Fill in usual speeds where nothing tells the real ones."""
    cards = tuple(
        replace(card, read=card.read or _USUAL_CARD, link=card.link or _USUAL_LINK)
        for card in machine.cards
    )
    return replace(machine, read=machine.read or _USUAL_READ, cards=cards)


def _because(plan: Plan, tried: Sequence[Plan]) -> Plan:
    """Add to a choice why nothing better was taken."""
    if not tried:
        return plan
    reasons = [f"{other.strategy_text!r} {other.why}" for other in tried]
    return replace(plan, why="; ".join(reasons))


def _nothing_fits(file: ModelFile, tried: Sequence[Plan]) -> LimitError:
    """Say what is missing, and what would fit."""
    here = [plan for plan in tried if plan.segments[0].device == "cpu"]
    least = min(here, key=lambda plan: sum(plan.lacking.values()))
    weights = sum(row.resident for row in least.rows)
    spare = least.free["cpu"] - (least.peaks["cpu"] - weights)
    hint = "close other programs, or allow more memory"
    if spare > weights / 20:
        hint += f"; a model of {spare / weights:.0%} of this one's size would fit as it is"
    return LimitError(
        f"{file.checkpoint.path}: does not fit into memory, not even as "
        f"{least.strategy_text!r}, which {least.why}",
        hint=hint,
    )


def torch_with_cuda() -> bool:
    """Tell whether torch is installed and made with CUDA, without importing it."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return False
    try:
        text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return True  # then importing it will tell
    return "cuda: Optional[str] = None" not in text


def automatic(
    file: ModelFile, strategy: Strategy, *, cards: bool = True
) -> tuple[Strategy, str | None]:
    """Choose device and precision for a model by the memory that is free.

    Args:
        file: The model.
        strategy: What was asked for besides.
        cards: Whether a card may be used.

    Returns:
        A strategy that is not automatic, and what its user should know.

    Raises:
        LimitError: Nothing fits.
    """
    machine, notice = this_machine(strategy.threads), None
    if machine.cards and not cards:
        machine = replace(machine, cards=())
    elif machine.cards and not is_small(file.checkpoint.path) and not torch_with_cuda():
        name = machine.cards[0].name
        notice = f"Running on the CPU: torch is made without CUDA here, so {name} is not used"
        machine = replace(machine, cards=())
    plan = choose(file, machine, strategy.budgets)
    first = plan.segments[0]
    chosen = replace(strategy, auto=False, device=first.device)
    if plan.split:
        chosen = replace(chosen, segments=plan.segments)
    elif not plan.natural:
        chosen = replace(chosen, dtype=first.dtype)
        if plan.engine == "torch":
            chosen = replace(chosen, engine="torch")
    if plan.why:
        notice = f"Running as {plan.strategy_text!r}, since {plan.why}"
    return chosen, notice
