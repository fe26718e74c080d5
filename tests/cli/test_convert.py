"""`rwkv convert`, `rwkv cache`, and what `rwkv info` says of packed files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from cli.conftest import Cli
from oracle.weights import Shape, random_model
from safetensors.numpy import save_file

from rwkv_cli.native import library

found = library.find()
if found.path is None:
    pytest.skip("there is no native library", allow_module_level=True)

SHAPE = Shape(layers=2, heads=2, size=16, ffn=64, vocab=256, rank=8)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save_file(random_model("v7", SHAPE), path)
    return path


@pytest.fixture
def env(tmp_path: Path, env: dict[str, str]) -> dict[str, str]:
    return env | {
        "RWKV_CACHE_DIR": str(tmp_path / "cache"),
        "RWKV_MODELS_DIR": str(tmp_path / "models"),
        "RWKV_NATIVE_LIBRARY": str(found.path),
    }


ASK = ("--tokenizer", "bytes", "--temperature", "0", "-N", "12", "-q", "hello")


@pytest.mark.parametrize("dtype", ["int8", "int4", "bf16"])
def test_a_converted_model_says_what_the_original_says_in_that_precision(
    dtype: str, small: Path, tmp_path: Path, cli: Cli
) -> None:
    out = tmp_path / "packed.safetensors"
    made = cli("convert", small, "--dtype", dtype, "-o", out)
    assert (made.code, made.out) == (0, f"{out}\n".encode())
    assert made.err == f"Packed as {dtype}: 72 tensors, {out.stat().st_size:,} bytes.\n"
    packed = cli("generate", "-m", out, *ASK)
    direct = cli("generate", "-m", small, "--dtype", dtype, *ASK)
    assert packed.code == direct.code == 0, packed.err
    assert packed.out == direct.out


def test_without_output_the_file_is_installed(small: Path, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "models" / "small-int8.safetensors"
    assert cli("convert", small, "--dtype", "int8").out == f"{path}\n".encode()
    assert b"small-int8" in cli("models").out
    assert cli("generate", "-m", "small-int8", *ASK).code == 0


def test_a_file_that_is_there_is_replaced_only_by_force(
    small: Path, tmp_path: Path, cli: Cli
) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"precious")
    refused = cli("convert", small, "--dtype", "int8", "-o", out)
    assert refused.code == 2
    assert "--force" in refused.err
    assert out.read_bytes() == b"precious"
    assert cli("convert", small, "--dtype", "int8", "-o", out, "--force").code == 0
    assert cli("info", out).code == 0


def test_the_original_is_never_replaced(small: Path, cli: Cli) -> None:
    before = small.read_bytes()
    refused = cli("convert", small, "--dtype", "int8", "-o", small, "--force")
    assert refused.code == 2
    assert "is the original" in refused.err
    assert small.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("nothing.pth", "--dtype", "int8"), 3, "no such file"),
        (("demo", "--dtype", "int3"), 2, "dtype is 'int3'"),
        (("demo",), 2, "nothing says what to make of it"),
        (("demo", "-o", "x.gguf"), 2, "no format is written under a name in .gguf"),
        (("demo", "--to", "gguf"), 2, "--to is 'gguf'"),
        (("demo", "--to", "packed"), 2, "needs a precision"),
        (("demo", "--to", "pth", "--dtype", "int8"), 2, "only packed files hold int8"),
        (("demo", "--to", "pth", "-o", "x.safetensors"), 2, "is no name for pth"),
        (("demo", "--dtype", "int4", "-o", "x.pth"), 2, "is no name for a packed file"),
        (("demo", "--to", "pth", "-o", "/dev/null/x.pth"), 5, "cannot write"),
        (("demo", "--to", "pth", "--lora", "no.pth:3"), 3, "no.pth does not exist"),
        (("demo", "--dtype", "int8", "-o", "/dev/null/x.safetensors"), 5, "cannot write"),
        (("demo", "--dtype", "int8", "-t", "0"), 2, "0 is not in the range"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: tuple[str, ...], code: int, sentence: str, cli: Cli
) -> None:
    outcome = cli("convert", *arguments)
    assert outcome.code == code
    assert sentence in outcome.err.lower() + outcome.err
    assert outcome.out == b""
    assert "Traceback" not in outcome.err


def test_packing_what_is_packed_is_refused(small: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "out.safetensors"
    cli("convert", small, "--dtype", "int8", "-o", out)
    refused = cli("convert", out, "--dtype", "int4", "-o", tmp_path / "twice.safetensors")
    assert refused.code == 6
    assert "packed already" in refused.err
    assert not (tmp_path / "twice.safetensors").exists()


def test_info_tells_of_a_packed_file_what_it_tells_of_the_original(
    small: Path, tmp_path: Path, cli: Cli
) -> None:
    out = tmp_path / "out.safetensors"
    cli("convert", small, "--dtype", "int4", "-o", out)
    before = json.loads(cli("info", small, "--json").out)
    after = json.loads(cli("info", out, "--json", "--tensors").out)
    same = set(before) - {"file", "file_bytes", "weights", "run"}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert after["packed"] == "int4"
    assert after["weights"] == ["fp32", "int4", "int8"]
    assert after["tensors"]["head.weight"] == f"int8 [256, {SHAPE.width}]"
    assert float(after["largest_error"].split()[0]) < 0.09
    assert "kept_in_16_bits" not in after


def test_info_lists_what_stayed_in_16_bits(tmp_path: Path, cli: Cli) -> None:
    tensors = random_model("v7", SHAPE)
    tensors["blocks.0.att.key.weight"][0, 0] = np.inf
    source, out = tmp_path / "odd.safetensors", tmp_path / "out.safetensors"
    save_file(tensors, source)
    made = cli("convert", source, "--dtype", "int8", "-o", out)
    assert "1 tensor stays in 16 bits" in made.err
    facts = json.loads(cli("info", out, "--json").out)
    assert facts["kept_in_16_bits"] == {"blocks.0.att.key.weight": "error 1.0000"}
    assert "blocks.0.att.key.weight  error 1.0000" in cli("info", out).out.decode()


def test_the_cache_lists_what_it_holds_and_lets_it_go(
    small: Path, tmp_path: Path, cli: Cli
) -> None:
    empty = cli("cache")
    assert (empty.code, empty.out) == (0, b"")
    for dtype in ("int8", "int4"):
        assert cli("generate", "-m", small, "--dtype", dtype, *ASK).code == 0
    names = [line.split()[0] for line in cli("cache").out.decode().splitlines()]
    assert [name.rsplit("-", 1)[0] for name in names] == ["small-int4", "small-int8"]
    paths = cli("cache", "--paths").out.decode().splitlines()
    assert [Path(path).stem for path in paths] == names
    assert cli("cache", "rm", "small").code == 3
    assert cli("cache", "rm", "large").code == 3
    assert cli("cache", "rm", "int8").code == 0
    assert os.listdir(tmp_path / "cache" / "packed") == [f"{names[0]}.safetensors"]
    assert cli("cache", "rm").code == cli("cache", "--all").code == 2
    assert cli("cache", "rm", "--all").code == 0
    assert cli("cache").out == b""


def test_names_in_the_cache_never_reach_a_terminal_raw(tmp_path: Path, cli: Cli) -> None:
    folder = tmp_path / "cache" / "packed"
    folder.mkdir(parents=True)
    (folder / "x\x1b[2J-int8-0.safetensors").write_bytes(b"")
    assert b"\x1b" not in cli("cache").out


def test_the_demo_packs_as_well(tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "models" / "demo-int8.safetensors"
    assert cli("convert", "demo", "--dtype", "int8").out == f"{out}\n".encode()
    facts = json.loads(cli("info", out, "--json").out)
    assert (facts["tokenizer"], facts["template"]) == ("demo", "demo")
