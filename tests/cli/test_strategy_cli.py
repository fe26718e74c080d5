"""Strategies and budgets on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.conftest import Cli
from oracle.models import needs_native
from oracle.weights import Shape, random_model
from safetensors.numpy import save_file

from rwkv_cli.cli.options import whole_number
from rwkv_cli.engine.memory import Card, Machine

GO = ("-N", "3", "--temperature", "0", "--ban", "0")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights outweigh what a process needs besides: some 100 MB."""
    shape = Shape(layers=2, heads=16, size=64, ffn=4096, vocab=256, rank=32)
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    save_file(random_model("v7", shape), path)
    return path


def test_an_error_in_a_strategy_is_pointed_at(cli: Cli, tiny: Path) -> None:
    text = "cuda fp16 *10 -> 模型 fp32"
    result = cli("generate", "-m", tiny, "hi", *GO, "--strategy", text)
    assert (result.code, result.out) == (2, b"")
    said, shown, carets, hint = result.err.splitlines()
    assert said.startswith("rwkv: the strategy's device is '模型'; it must be cpu, cuda")
    assert shown == f"  {text}"
    assert carets == "  " + " " * 17 + "^^^^"
    assert hint.startswith("  for example")


def test_a_split_model_answers_like_a_whole_one(cli: Cli, tiny: Path) -> None:
    whole = cli("generate", "-m", tiny, "hi", *GO, "--strategy", "cpu fp32", "--engine", "torch")
    split = cli("generate", "-m", tiny, "hi", *GO, "--strategy", "cpu fp32 *1 -> cpu fp16i8")
    assert (split.code, whole.code) == (0, 0)
    assert len(split.out) == len(whole.out) > 0


@needs_native
def test_a_budget_makes_a_model_smaller_and_a_notice_says_so(cli: Cli, wide: Path) -> None:
    go = ("generate", "-m", wide, "--tokenizer", "bytes", *GO, "hi")
    free = cli(*go)
    assert free.code == 0
    assert "Running as" not in free.err
    bound = cli(*go, "--ram-budget", "180m")
    assert bound.code == 0
    assert "Running as 'cpu fp16i8', since 'cpu fp32' needs" in bound.err
    assert "where 180 MB are allowed" in bound.err
    none = cli(*go, "--ram-budget", "1k")
    assert (none.code, none.out) == (8, b"")
    assert "does not fit into memory, not even as 'cpu fp16i4'" in none.err
    asked = cli(*go, "--ram-budget", "1k", "--device", "cpu")
    assert asked.out == free.out


def test_a_budget_that_is_no_number_is_refused(cli: Cli, tiny: Path) -> None:
    result = cli("generate", "-m", tiny, "hi", "--vram-budget", "much")
    assert result.code == 2
    assert "--vram-budget" in result.err


def test_a_card_that_torch_cannot_use_is_done_without(
    cli: Cli, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card("cuda:0", "A Card", 24 * 10**9, 1e12, 2e10)
    machine = Machine(64 * 10**9, 4e10, (card,))
    monkeypatch.setattr("rwkv_cli.engine.plan.this_machine", lambda threads: machine)
    go = ("generate", "-m", wide, "--tokenizer", "bytes", *GO, "hi")
    monkeypatch.setattr("rwkv_cli.engine.plan.torch_with_cuda", lambda: False)
    without = cli(*go)
    assert "Running on the CPU: torch is made without CUDA here, so A Card is not" in without.err
    monkeypatch.setattr("rwkv_cli.engine.plan.torch_with_cuda", lambda: True)
    monkeypatch.setattr("rwkv_cli.engine.torch_weights.is_available", lambda device: False)
    broken = cli(*go)
    assert "Running on the CPU: there is no cuda here that torch can use" in broken.err
    assert (without.code, broken.code) == (0, 0)
    assert without.out == broken.out == cli(*go, "--device", "cpu").out


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.5g", 1_500_000_000), ("0.25k", 250), ("3.k", 3000), ("1.0005k", 1000), ("12", 12)],
)
def test_a_number_may_have_a_unit_and_a_part_of_it(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize("text", ["1.5", ".k", "1.x5k", "1..5k", "k", "", "4kk"])
def test_what_is_no_number_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        whole_number(text)
