"""Strategy strings: what is read, how layers are shared out, where an error points."""

from __future__ import annotations

import re
from itertools import pairwise, product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.models import TINY, load_model, save_pth
from oracle.weights import random_model

from rwkv_cli.engine.segments import (
    Place,
    Segment,
    allocate,
    parse_segments,
    places,
    settle,
    written,
)
from rwkv_cli.engine.strategy import Strategy, choose_strategy, parse_strategy
from rwkv_cli.errors import PointedError, UsageError
from rwkv_cli.render.pointing import pointed

DEVICES = ["cuda", "cuda:1", "cpu", "mps", "xpu"]
COUNTS = [None, *range(9)]

# As the reference package has it, but for xpu, which it lacks, and dml and i3, which are refused.
REFERENCE = re.compile(
    r"^(?:(?:^|->) *(?:cuda(?::[\d]+)?|cpu|mps|xpu) (?:fp(?:16|32)|bf16)(?:i8|i4)?"
    r"(?: \*[\d]+\+?)? *)+$"
)

segment = st.builds(
    Segment,
    st.sampled_from(DEVICES),
    st.sampled_from(["fp32", "bf16", "fp16"]),
    st.sampled_from([None, 8, 4]),
    st.sampled_from(COUNTS),
)
strategies = st.lists(segment, min_size=1, max_size=4).flatmap(
    lambda found: st.integers(-1, len(found) - 1).map(lambda i: _streaming(found, i))
)


def _streaming(found: list[Segment], number: int) -> list[Segment]:
    """Have one of the segments that count their layers stream."""
    if number < 0 or found[number].count is None:
        return found
    one = found[number]
    made = Segment(one.device, one.floats, one.bits, one.count, streams=True)
    return [*found[:number], made, *found[number + 1 :]]


def reference_plan(text: str, layers: int) -> tuple[list[int], int, int]:
    """The arithmetic of the package `rwkv` 0.8.32 (model.py, "Compute strategy"), written anew:
    layers up to the end of each segment, which one streams, and how many layers it streams.
    """
    parts = [part.split() for part in text.split("->")]
    plan, total, given_away, unset = [0] * len(parts), layers + 1, 0, 0
    streaming, streamed = -1, 0
    for i, words in enumerate(parts):
        if len(words) == 2:
            unset += 1
            continue
        number = words[2].strip("*")
        if number.endswith("+"):
            streaming = i
        plan[i] = int(number.rstrip("+"))
        given_away += plan[i]
        if given_away >= total:
            plan[i] -= given_away - total
            break
    if given_away < total and streaming < 0:
        for i in range(len(parts)):
            if plan[i] == 0 and unset:
                plan[i] = (total - given_away) // unset
                given_away += plan[i]
                unset -= 1
        plan[-1] += max(0, total - given_away)
    elif given_away < total:
        streamed = total - given_away
        plan[streaming] += streamed
    for i in range(1, len(plan)):
        plan[i] += plan[i - 1]
    return plan, streaming, streamed


@settings(max_examples=400, deadline=None)
@given(strategies, st.integers(1, 12))
def test_layers_are_shared_out_as_the_reference_does(found: list[Segment], layers: int) -> None:
    text = written(found)
    assert REFERENCE.match(text)
    assert list(parse_segments(text)) == found
    if any(s.count == 0 and not s.streams for s in found):
        return  # there the reference divides by zero, or gives layers to who wants none
    plan, streaming, streamed = reference_plan(text, layers)
    kept = [end - begin for begin, end in zip([0, *plan], plan, strict=False)]
    expected = [(n - streamed, streamed) if i == streaming else (n, 0) for i, n in enumerate(kept)]
    assert allocate(found, layers + 1) == expected


@settings(max_examples=300, deadline=None)
@given(strategies, st.integers(1, 12))
def test_every_layer_has_one_place_and_the_settled_text_says_the_same(
    found: list[Segment], layers: int
) -> None:
    where = places(found, layers + 1)
    assert len(where) == layers + 1
    assert not where[-1].streamed
    settled = settle(found, layers + 1)
    assert places(parse_segments(written(settled)), layers + 1) == where
    assert settle(settled, layers + 1) == settled
    for one, next_one in pairwise(settled):
        assert one.streams or (one.device, one.dtype, one.floats) != (
            next_one.device, next_one.dtype, next_one.floats,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cuda fp16", [25]),
        ("cuda:0 fp16 -> cuda:1 fp16", [12, 13]),
        ("cuda fp16 *8 -> cpu fp32", [8, 17]),
        ("cuda fp16 *8", [25]),
        ("cpu fp32 *1 -> cuda fp16 -> cpu fp32 *1", [1, 23, 1]),
        ("cuda fp16 *20 -> cuda:1 fp16 *20 -> cpu fp32 *20", [20, 5, 0]),
        ("cuda fp16 *0 -> cpu fp32", [0, 25]),
        ("cuda fp16i8 *0+ -> cpu fp32 *1", [(0, 24), 1]),
        ("cuda fp16i8 *10 -> cuda fp16 *0+", [10, (0, 15)]),
        ("cuda fp16 *3+ -> mps fp16 -> cpu fp32 *1", [(3, 21), 0, 1]),
    ],
)
def test_the_strings_of_the_manuals_mean_what_they_say(
    text: str, expected: list[int | tuple[int, int]]
) -> None:
    shares = [(n, 0) if isinstance(n, int) else n for n in expected]
    assert allocate(parse_segments(text), 25) == shares


@pytest.mark.parametrize(
    ("text", "wrong", "said"),
    [
        ("gpu fp16", "gpu", "'gpu'"),
        ("cpu", "cpu", "no precision for cpu"),
        ("cuda fp8", "fp8", "'fp8'"),
        ("cuda fp16i3", "fp16i3", "3 bits"),
        ("dml fp16", "dml", "DirectML"),
        ("cuda fp16 -> cpu fp32x", "fp32x", "'fp32x'"),
        ("cuda fp16 12", "12", "*N"),
        ("cuda fp16 *-1", "*-1", "*N"),
        ("cuda fp16 *²", "*²", "*N"),
        ("cuda fp16 *1 *2", "*2", "more words"),
        ("cuda:x fp16", "cuda:x", "cuda:x"),
        ("cuda fp16 *3+ -> cuda fp16 *4+", "*4+", "two segments"),
        ("cuda fp16 ->  -> cpu fp32", "  ", "empty segment"),
        ("cuda fp16 ->", ">", "empty segment"),
        ("-> cuda fp16", "-", "empty segment"),
        ("模型 fp16", "模型", "模型"),
        ("cuda fp16 *10 -> 模型 fp32 *3", "模型", "模型"),
        ("模 fp16 -> cpu fp32", "模", "模"),
    ],
)
def test_an_error_points_at_the_wrong_part(text: str, wrong: str, said: str) -> None:
    with pytest.raises(PointedError) as caught:
        parse_segments(text)
    error = caught.value
    begin, end = error.span
    assert text[begin:end] == wrong
    assert said in error.message
    assert "strategy" in error.message
    assert isinstance(error, UsageError)


def test_carets_stand_below_wide_characters_too() -> None:
    assert pointed("cuda fp16 *1 -> 模型 fp32 *3", (16, 18))[1] == " " * 16 + "^^^^"
    assert pointed("模型 fp16 -> cpx fp32", (11, 14))[1] == " " * 13 + "^^^"
    shown, carets = pointed("a\nb x", (4, 5))
    assert (shown, carets) == ("a\u240ab x", "    ^")


def test_one_segment_is_a_device_and_a_precision() -> None:
    assert parse_strategy("cpu bf16i8") == Strategy("cpu", "int8")
    assert parse_strategy(" cuda:1   fp16 *3 ") == Strategy("cuda:1", "fp16")
    assert parse_strategy("cpu fp16 *0+") == Strategy("cpu", "fp16")
    assert parse_strategy("cuda fp16 *0+").segments
    assert parse_strategy("auto") == Strategy(auto=True)


def test_without_a_word_the_strategy_is_automatic() -> None:
    assert choose_strategy(None, None, None).auto
    assert choose_strategy("auto", None, None, threads=3) == Strategy(auto=True, threads=3)
    for device, dtype, engine in product((None, "cpu"), (None, "bf16"), (None, "torch")):
        if device or dtype or engine:
            chosen = choose_strategy(None, device, dtype, engine)
            assert chosen == Strategy("cpu", dtype, engine)
    short = choose_strategy("cuda fp16 *3 -> cpu fp32", "cpu", None)
    assert (short.device, short.segments) == ("cpu", ())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"strategy": "cuda fp16 *3 -> cpu fp32", "engine": "native"}, "in segments"),
        ({"strategy": "cuda fp16 *0+", "kernels": "cuda"}, "--kernels auto"),
        ({"device": "cuda", "engine": "native"}, "on cuda"),
    ],
)
def test_what_no_engine_does_is_refused(asked: dict[str, str], said: str) -> None:
    whole = {"strategy": None, "device": None, "dtype": None, **asked}
    with pytest.raises(UsageError) as caught:
        choose_strategy(**whole)
    assert said in f"{caught.value.message} {caught.value.hint}"


def test_a_strategy_of_one_place_runs_on_the_engine_of_that_place(tmp_path: Path) -> None:
    path = save_pth(random_model("v7", TINY), tmp_path / "m.pth")
    for text in ("cpu fp32 *1 -> cpu fp32", "cpu fp32 *0+", "cpu fp32 *0 -> cpu fp32"):
        model = load_model(path, parse_strategy(text), tokenizer="bytes")
        whole = load_model(path, Strategy("cpu", "fp32"), tokenizer="bytes")
        assert model.engine.numerics == whole.engine.numerics
    assert places(parse_segments("cpu fp32"), 3) == [Place("cpu", "fp32")] * 3
