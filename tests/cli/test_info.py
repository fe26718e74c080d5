"""`rwkv info` knows a file for what it is, and says what to do with it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.conftest import Cli
from oracle.models import TINY, save_pth
from oracle.weights import Tensors, random_model, tuned_state
from safetensors.numpy import save_file

from rwkv_cli.cli.infofacts import facts_of
from rwkv_cli.engine.lora import with_loras
from rwkv_cli.engine.lorafile import Lora
from rwkv_cli.engine.modelfile import open_model
from rwkv_cli.errors import RwkvError
from tests.checkpoints.mutate import mutants

KEY = "blocks.1.att.key"


def _lora() -> Tensors:
    return {
        f"{KEY}.lora_A": np.ones((4, 32), np.float32),
        f"{KEY}.lora_B": np.ones((32, 4), np.float32),
        "blocks.1.ln1.weight": np.ones(32, np.float32),
    }


def test_a_model_is_told_with_its_prompt_and_the_command_that_runs_it(
    cli: Cli, tmp_path: Path
) -> None:
    path = save_pth(random_model("v7", TINY), tmp_path / "rwkv7-g1d mine.pth", "bf16")
    told = json.loads(cli("info", "--json", path).out)
    assert (told["template"], told["prompt"]) == ("g1", "User: …\\n\\nAssistant:")
    assert told["run"] == f"rwkv chat -m '{path}'"
    assert "problem" not in told
    assert f"run          rwkv chat -m '{path}'" in cli("info", path).out.decode()


def test_what_stands_in_the_way_is_told(cli: Cli, tmp_path: Path) -> None:
    shape = TINY.__class__(layers=1, heads=1, size=8, ffn=8, vocab=300, rank=2)
    path = save_pth(random_model("v7", shape), tmp_path / "m.pth")
    assert "vocabulary of 300: name one with --tokenizer" in cli("info", path).out.decode()


def test_a_lora_is_told_with_the_flag_that_merges_it(cli: Cli, tmp_path: Path) -> None:
    path = save_pth(_lora(), tmp_path / "l.pth")
    told = json.loads(cli("info", "--json", path).out)
    assert told == {
        "file": str(path), "format": "LoRA", "rank": 4, "layers": 1, "matrices": 1, "whole": 1,
        "holds": "trained changes to a model, to be merged into it", "kinds": ["att.key.weight"],
        "weights": ["F32"], "file_bytes": path.stat().st_size,
        "run": f"rwkv chat -m MODEL --lora {path}:ALPHA",
    }  # fmt: skip
    save_file({f"{KEY}.disha": np.ones((2, 4, 4), np.float32)}, path)
    told = json.loads(cli("info", "--json", path).out)
    assert (told["format"], told["rank"]) == ("DiSHA", 4)
    assert told["run"].endswith("--lora " + str(path))


def test_a_tuned_state_and_a_tokenizer_are_told_with_their_use(
    cli: Cli, tmp_path: Path, shared_data: Path
) -> None:
    state = save_pth(tuned_state(TINY), tmp_path / "t.pth")
    told = json.loads(cli("info", "--json", state).out)
    assert (told["format"], told["layers"], told["heads"]) == ("tuned state", 2, 2)
    assert told["run"] == f"rwkv state import {state} NAME -m MODEL"
    told = json.loads(cli("info", "--json", shared_data / "20B_tokenizer.json").out)
    assert (told["format"], told["vocabulary"]) == ("tokenizer", 50277)


@pytest.mark.parametrize(
    ("name", "content", "sentence", "hint"),
    [
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs"),
        ("a.pth", b"<!DOCTYPE html>", "a web page", "Download it again"),
        ("a.pth.part", b"PK\3\4", "an unfinished download", "start the download again"),
        ("a.pth", b"\0" * 99, "begins with zeros only", "Download it again"),
        ("a.txt", b"hello\n", "in none of the known formats", ""),
        ("a.json", b"{}", "looks like JSON text", ""),
        ("a.pth", b"", "is empty", ""),
    ],
)
def test_what_cannot_be_used_is_named_for_what_it_is(
    name: str, content: bytes, sentence: str, hint: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    result = cli("info", tmp_path / name)
    assert (result.code, result.out) == (6, b"")
    assert sentence in result.err
    assert hint in result.err


def test_what_the_reference_package_converted_is_named(cli: Cli, tmp_path: Path) -> None:
    content = {"_strategy": "cuda fp16i8", "_version": "0.7", "emb.weight": torch.zeros(2, 2)}
    torch.save(content, tmp_path / "c.pth")
    result = cli("info", tmp_path / "c.pth")
    assert result.code == 6
    assert "cuda fp16i8" in result.err


def test_a_lora_with_half_of_a_pair_is_told_by_the_missing_half(cli: Cli, tmp_path: Path) -> None:
    half = _lora()
    del half[f"{KEY}.lora_B"]
    result = cli("info", save_pth(half, tmp_path / "l.pth"))
    assert result.code == 6
    assert f"{KEY}.lora_A is there, {KEY}.lora_B is missing" in result.err


def test_a_lora_named_as_the_model_is_answered_with_the_flag_for_it(
    cli: Cli, tmp_path: Path
) -> None:
    result = cli("generate", "-m", save_pth(_lora(), tmp_path / "l.pth"), "hi")
    assert result.code == 6
    assert "--lora this file" in result.err


def _lora_files(folder: Path) -> Iterator[bytes]:
    for kind in ("pth", "safetensors"):
        path = folder / f"l.{kind}"
        if kind == "pth":
            save_pth(_lora(), path)
        else:
            save_file(_lora(), path)
        yield path.read_bytes()


@pytest.mark.parametrize("count", [60])
def test_no_mutant_of_a_lora_gets_past_a_refusal(count: int, tmp_path: Path) -> None:
    file = open_model(save_pth(random_model("v7", TINY), tmp_path / "m.pth"))
    path = tmp_path / "mutant"
    rng = random.Random(0)
    for content in _lora_files(tmp_path):
        marks = [*range(min(len(content), 700)), *range(len(content) - 400, len(content))]
        for mutant in mutants(content, rng, count, marks):
            path.write_bytes(mutant)
            try:
                facts_of(path, "mutant", tensors=True)
            except RwkvError as error:
                assert "\n" not in error.message
            try:
                merged = with_loras(file, [Lora(path, 2)])
                for tensor in merged.checkpoint.tensors.values():
                    assert tensor.plain().nbytes == file.checkpoint.tensors[tensor.name].nbytes
            except RwkvError as error:
                assert "\n" not in error.message
