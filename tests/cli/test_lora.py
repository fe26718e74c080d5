"""`--lora` on the command line: by flag, environment or file, and what its states belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli.conftest import Cli
from oracle.models import TINY, save_pth
from oracle.weights import random_model

import rwkv_cli

KEY = "blocks.1.att.key"
ASK = ("--tokenizer", "bytes", "--temperature", "0", "-N", "12", "hello")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_pth(random_model("v7", TINY), tmp_path / "m.pth")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    parts = {f"{KEY}.lora_A": rng.normal(0, 1, (4, 32)), f"{KEY}.lora_B": rng.normal(0, 1, (32, 4))}
    return save_pth({n: a.astype(np.float32) for n, a in parts.items()}, tmp_path / "l.pth")


def test_a_merged_model_says_what_the_file_says_that_it_is_converted_to(
    cli: Cli, model: Path, lora: Path, tmp_path: Path, env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out.pth"
    made = cli("convert", model, "--lora", f"{lora}:8", "-o", out)
    assert (made.code, made.out) == (0, f"{out}\n".encode())
    assert "Merged into 1 tensor:\n  LoRA l.pth, alpha 8\n" in made.err
    said = cli("generate", "-m", out, *ASK).out
    assert said != cli("generate", "-m", model, *ASK).out
    flagged = cli("generate", "-m", model, "--lora", f"{lora}:8", *ASK)
    assert flagged.out == said
    assert "LoRA l.pth, alpha 8\n" in flagged.err
    Path(env["RWKV_CONFIG"]).write_text(f'lora = ["{lora}:8"]\n')
    assert cli("generate", "-m", model, *ASK).out == said
    monkeypatch.setenv("RWKV_LORA", f"{lora}:-40")
    assert cli("generate", "-m", model, *ASK).out != said
    loaded = rwkv_cli.load(model, tokenizer="bytes", lora=[f"{lora}:8"])
    assert loaded.name == "m+l"


def test_an_alpha_that_is_not_given_is_told_once_and_not_to_the_quiet(
    cli: Cli, model: Path, lora: Path
) -> None:
    told = cli("generate", "-m", model, "--lora", lora, *ASK)
    assert told.err.count("its alpha taken to be its rank") == 1
    assert cli("generate", "-q", "-m", model, "--lora", lora, *ASK).err == ""


def test_a_state_goes_on_with_the_model_and_the_lora_that_made_it(
    cli: Cli, model: Path, lora: Path, tmp_path: Path
) -> None:
    state = tmp_path / "x.rwkvstate"
    merged = ("-m", model, "--lora", f"{lora}:8")
    assert cli("generate", *merged, *ASK, "--save-state", state).code == 0
    assert cli("generate", *merged, *ASK, "--state", state).code == 0
    assert cli("generate", "-m", model, *ASK, "--state", state).code == 4
    assert cli("generate", "-m", model, "--lora", lora, *ASK, "--state", state).code == 4


def test_nothing_is_merged_into_a_packed_file(
    cli: Cli, model: Path, lora: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "p.safetensors"
    if cli("convert", model, "--dtype", "int8", "-o", packed).code:
        pytest.skip("there is no native library")
    refused = cli("generate", "-m", packed, "--lora", lora, *ASK)
    assert refused.code == 6
    assert "is packed as int8, so nothing can be merged into it" in refused.err
    assert "--dtype int8" in refused.err


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [("no.pth:3", 3, "no.pth does not exist"), ("x:nan", 2, "alpha must be a number"),
     ("", 2, "needs the name of a file"), ("{model}", 6, "is a whole model, not a LoRA")],
)  # fmt: skip
def test_what_is_no_lora_is_one_sentence(
    text: str, code: int, sentence: str, cli: Cli, model: Path
) -> None:
    result = cli("generate", "-m", model, "--lora", text.format(model=model), *ASK)
    assert (result.code, result.out) == (code, b"")
    assert sentence in result.err


def test_a_setting_that_is_no_text_is_refused(cli: Cli, env: dict[str, str], model: Path) -> None:
    Path(env["RWKV_CONFIG"]).write_text("lora = 3\n")
    result = cli("generate", "-m", model, *ASK)
    assert result.code == 2
    assert "lora must be a text or a list of texts, not 3" in result.err
